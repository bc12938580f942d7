//! Finds the faults to plant: every ordering in the source, and the entries of `list.rs`.

use std::ops::Range;

use crate::list::{Allowed, Logic};

/// One change to one file.
#[derive(Default)]
pub(crate) struct Fault {
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The description of the fault, without file and line.
    pub(crate) name: String,
    range: Range<usize>,
    replace: String,
    /// For a logic fault, the model that should catch it.
    pub(crate) model: Option<&'static str>,
    /// For an ordering: the fields that [`Allowed`] compares.
    function: String,
    weakening: String,
    lines: String,
    /// Why the fault may survive.
    pub(crate) allowed: Option<&'static str>,
}

impl Fault {
    /// The file's text with the fault in it.
    pub(crate) fn plant(&self, source: &str) -> String {
        format!("{}{}{}", &source[..self.range.start], self.replace, &source[self.range.end..])
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} {}", self.file, self.line, self.name)
    }
}

impl Allowed {
    pub(crate) fn matches(&self, fault: &Fault) -> bool {
        let Self { file, function, text, fault: weakening, .. } = self;
        (file, function, weakening) == (&&*fault.file, &&*fault.function, &&*fault.weakening)
            && fault.lines.contains(text)
    }
}

/// The weakened orderings of one file.
pub(crate) fn orderings(file: &str, source: &str) -> Vec<Fault> {
    let code = code(source);
    let mut faults = Vec::new();
    for (start, word) in words(&code).filter(|(_, word)| ["Acquire", "Release", "AcqRel", "SeqCst"].contains(word)) {
        let Call { name: call, start: call_start, argument } = Call::around(&code, start);
        // `compare_exchange(.., success, failure)` and `fetch_update(success, failure, ..)`
        let failure = call.starts_with("compare_exchange") && argument == 3 || call == "fetch_update" && argument == 1;
        let weaker: &[&str] = match (word, call) {
            // A `Relaxed` fence is invalid, so the fence is removed.
            ("Acquire" | "Release", "fence") => &["none"],
            ("Acquire" | "Release", _) => &["Relaxed"],
            ("AcqRel", _) => &["Acquire", "Release"],
            (_, "load") => &["Acquire"],
            (_, "store") => &["Release"],
            _ if failure => &["Acquire"],
            _ => &["AcqRel"],
        };
        let line_end = source[start..].find('\n').map_or(source.len(), |len| start + len);
        let lines = &source[source[..call_start].rfind('\n').unwrap_or(0)..line_end];
        let function = function(&code[..start]);
        let tags = tags(&source[statement(&code, call_start)..line_end]);
        for weaker in weaker {
            let weakening = format!("{}{word}->{weaker}", if failure { "failure " } else { "" });
            let (range, replace) = if *weaker == "none" {
                (call_start..start + code[start..].find(')').map_or(0, |len| len + 1), "()".to_owned())
            } else if code[..start].ends_with("::") {
                (start..start + word.len(), (*weaker).to_owned())
            } else {
                (start..start + word.len(), format!("crate::sync::atomic::Ordering::{weaker}"))
            };
            faults.push(Fault {
                file: file.to_owned(),
                line: line(source, start),
                name: format!("{call} {weakening} in fn {function}{tags}"),
                range,
                replace,
                function: function.to_owned(),
                weakening,
                lines: lines.to_owned(),
                ..Fault::default()
            });
        }
    }
    faults
}

/// The fault that an entry of the list describes, or an error in the entry.
pub(crate) fn logic(entry: &'static Logic, source: &str) -> Result<Fault, String> {
    let Logic { file, name, find, replace, model } = entry;
    let found = source.matches(find).count();
    if found != 1 {
        return Err(format!("{file}: \"{name}\": its text must occur once and occurs {found} times:\n{find}"));
    }
    if find == replace {
        return Err(format!("{file}: \"{name}\" changes nothing"));
    }
    let start = source.find(find).unwrap_or_default();
    Ok(Fault {
        file: (*file).to_owned(),
        line: line(source, start),
        name: (*name).to_owned(),
        range: start..start + find.len(),
        replace: (*replace).to_owned(),
        model: Some(model),
        ..Fault::default()
    })
}

/// The source, in which all that is not code of the library (comments, literals, `use` items, and items under
/// `#[cfg(test)]`) is replaced by spaces. So offsets stay valid. Relies on rustfmt's layout.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let blank = comment_or_literal(rest);
        let code_len = if is_word(first) { rest.find(|c| !is_word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (piece, after) = rest.split_at(if blank > 0 { blank } else { code_len });
        code += &if blank > 0 { blanks(piece) } else { piece.to_owned() };
        rest = after;
    }
    // The indentation of the `#[cfg(test)]` item that contains the line, if any.
    let mut test = None;
    let lines = code.split_inclusive('\n').map(|line| {
        let indentation = line.len() - line.trim_start().len();
        if line.trim_start().starts_with("#[cfg(test)]") || line.trim_start().starts_with("#[cfg(all(test,") {
            test = test.or(Some(indentation));
        }
        let kept = if test.is_some() { blanks(line) } else { line.to_owned() };
        if test == Some(indentation) && line.trim_end().ends_with(['}', ';', ',']) {
            test = None;
        }
        kept
    });
    let mut code: String = lines.collect();
    for (at, _) in words(&code.clone()).filter(|(_, word)| *word == "use") {
        // Not the `use<'a>` of a return type.
        if code[at + 3..].starts_with(char::is_whitespace) {
            let end = code[at..].find(';').map_or(code.len(), |len| at + len);
            code.replace_range(at..end, &blanks(&code[at..end]));
        }
    }
    code
}

/// Replaces each byte by a space, except line ends.
fn blanks(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The length of the comment, string or character at the start of `rest`, or 0.
fn comment_or_literal(rest: &str) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |len| from + len + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    let body = rest.strip_prefix(['b', 'c']).unwrap_or(rest);
    let hashes = body.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
    let quote = rest.len() - body.len() + hashes.map_or(0, |hashes| hashes + 1);
    let mut chars = rest[quote..].chars();
    match (chars.next(), hashes) {
        (Some('"'), Some(hashes)) => until(quote + 1, &format!("\"{}", "#".repeat(hashes))),
        // Any other `'` starts a lifetime.
        (Some(c), None) if c == '"' || c == '\'' && (chars.next() == Some('\\') || chars.next() == Some('\'')) => {
            let mut escaped = false;
            let end = rest[quote + 1..].find(|next| {
                let ends = next == c && !escaped;
                escaped = next == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |len| quote + 1 + len + 1)
        }
        _ => 0,
    }
}

/// The call that has an ordering as an argument, if there is one.
struct Call<'a> {
    /// The method or function; "" if the ordering is no argument.
    name: &'a str,
    /// Where the path of the function starts, as in `atomic::fence`; the ordering's own offset if it is no argument.
    start: usize,
    /// How many arguments precede the ordering.
    argument: usize,
}

impl<'a> Call<'a> {
    fn around(code: &'a str, ordering: usize) -> Self {
        let mut depth = 0_usize;
        let mut argument = 0;
        for (at, c) in code[..ordering].char_indices().rev() {
            match c {
                ')' | ']' | '}' => depth += 1,
                '(' if depth == 0 => {
                    let start = code[..at].trim_end_matches(|c| is_word(c) || c == ':').len();
                    let name = code[..at].trim_end_matches(is_word).len();
                    return Self { name: &code[name..at], start, argument };
                }
                '[' | '{' | ';' if depth == 0 => break,
                '(' | '[' | '{' => depth -= 1,
                ',' if depth == 0 => argument += 1,
                _ => {}
            }
        }
        Self { name: "", start: ordering, argument: 0 }
    }
}

/// The name of the function that contains the end of `before`.
fn function(before: &str) -> &str {
    let words: Vec<_> = words(before).collect();
    // `fn` may also start a type, `fn(usize)`: a name follows after one space.
    let name = words.windows(2).rfind(|pair| pair[0].1 == "fn" && pair[1].0 == pair[0].0 + 3);
    name.map_or("", |pair| pair[1].1)
}

/// Where the statement that contains `at` starts. This includes the comment above the statement, but not a comment that
/// follows the previous statement on its line.
fn statement(code: &str, at: usize) -> usize {
    let end_before = code[..at].rfind([';', '{', '}']).map_or(0, |end| end + 1);
    end_before + code[end_before..at].find('\n').unwrap_or(0)
}

/// The ids of the edges, like ` [S1]`, in the comments of a statement.
fn tags(statement: &str) -> String {
    let comments = statement.lines().filter_map(|line| line.split_once("//"));
    let brackets =
        comments.flat_map(|(_, comment)| comment.split('[').skip(1).filter_map(|piece| piece.split_once(']')));
    let is_id =
        |id: &str| id.starts_with(|c: char| c.is_ascii_uppercase()) && id.ends_with(|c: char| c.is_ascii_digit());
    brackets.filter(|(id, _)| is_id(id)).fold(String::new(), |tags, (id, _)| format!("{tags} [{id}]"))
}

fn line(source: &str, at: usize) -> usize {
    source[..at].matches('\n').count() + 1
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every word, with its offset.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let offset = |word: &str| word.as_ptr() as usize - code.as_ptr() as usize;
    code.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(move |word| (offset(word), word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a source, as the table names them.
    fn names(source: &str) -> Vec<String> {
        orderings("f.rs", source).iter().map(|fault| format!("{} {}", fault.line, fault.name)).collect()
    }

    /// The source with its only fault planted.
    fn planted(source: &str) -> String {
        let faults = orderings("f.rs", source);
        assert_eq!(faults.len(), 1);
        faults[0].plant(source)
    }

    #[test]
    fn only_code_counts() {
        let nothing = r##"
            //! Acquire
            /// Acquire
            // Acquire
            /* Acquire
            "Release */
            use crate::sync::atomic::Ordering::{Acquire, Release};
            pub(crate) use crate::{
                sync::atomic::Ordering::AcqRel,
            };
            fn f<'a>(text: &'a str) -> char {
                g("Acquire \" Acquire", r#"Acquire " Acquire"#, b"Acquire", br"Acquire\", '"', '\'', "Acquire");
                let AcquireOrNot = r#type;
                '\u{e9}'
            }
        "##;
        assert_eq!(names(nothing), Vec::<String>::new());
    }

    #[test]
    fn code_after_a_comment_or_literal_is_found() {
        let source = "fn f() { x('\"'); a.load(Acquire); } // \"\nfn g<'a>(_: &'a ()) { a.store(1, Release) /* \" */ }";
        assert_eq!(names(source), ["1 load Acquire->Relaxed in fn f", "2 store Release->Relaxed in fn g"]);
        assert_eq!(names("fn é() -> impl I + use<'a> { a.load(Acquire) }"), ["1 load Acquire->Relaxed in fn é"]);
    }

    #[test]
    fn tests_do_not_count() {
        let source = "
#[cfg(test)]
use x::Acquire;
fn f() { a.load(Acquire); }
#[cfg(test)]
#[allow(clippy::x)]
pub(super) fn g(
    _: A,
) {
    if x {
        a.load(Acquire);
    }
}
#[cfg(not(test))]
fn h() { a.load(Acquire); }
fn i() {
    S {
        #[cfg(test)]
        a: x.load(Acquire),
        b: x.load(Acquire),
    }
}
#[cfg(all(test, unix))]
mod tests {
    #[cfg(test)]
    fn j() {}
    fn k() { a.load(Acquire) }
}
fn l() { a.load(Acquire); }";
        assert_eq!(names(source).iter().map(|name| &name[name.len() - 1..]).collect::<String>(), "fhil");
    }

    #[test]
    fn each_ordering_is_weakened_by_one_step() {
        let source = "fn f() {
            a.load(Ordering::SeqCst); a.store(g(1, 2), SeqCst); a.swap(1, SeqCst);
            a.compare_exchange(0, h(1, 2), AcqRel, Acquire);
            a.compare_exchange_weak(0, 1, SeqCst, SeqCst);
            a.fetch_update(Release, Acquire, |x| Some(x));
            let order = if x { Acquire } else { Relaxed };
        }";
        let found = [
            "2 load SeqCst->Acquire in fn f",
            "2 store SeqCst->Release in fn f",
            "2 swap SeqCst->AcqRel in fn f",
            "3 compare_exchange AcqRel->Acquire in fn f",
            "3 compare_exchange AcqRel->Release in fn f",
            "3 compare_exchange failure Acquire->Relaxed in fn f",
            "4 compare_exchange_weak SeqCst->AcqRel in fn f",
            "4 compare_exchange_weak failure SeqCst->Acquire in fn f",
            "5 fetch_update Release->Relaxed in fn f",
            "5 fetch_update failure Acquire->Relaxed in fn f",
            "6  Acquire->Relaxed in fn f",
        ];
        assert_eq!(names(source), found);
    }

    #[test]
    fn a_fault_compiles_without_a_new_import() {
        assert_eq!(planted("a.load(Ordering::Acquire);"), "a.load(Ordering::Relaxed);");
        assert_eq!(planted("a.load(Acquire);"), "a.load(crate::sync::atomic::Ordering::Relaxed);");
    }

    #[test]
    fn a_fence_is_removed_or_weakened() {
        assert_eq!(planted("x(); atomic::fence(Ordering::Acquire); y()"), "x(); (); y()");
        assert_eq!(planted("fence(Ordering::SeqCst)"), "fence(Ordering::AcqRel)");
        assert_eq!(names("fn f() { fence(AcqRel) }").len(), 2);
    }

    #[test]
    fn the_comment_names_the_edge() {
        let source = "fn f() {
            // ORDERING: Acquire [S1]: pairs with
            // Release [S12] in `a[0]`.
            match self.state
                .load(Acquire) {}
            self.state.load(Acquire); // ORDERING: [W3]
            self.state.load(Acquire);
        }
        fn g() { a.load(Acquire); }";
        let found = [
            "5 load Acquire->Relaxed in fn f [S1] [S12]",
            "6 load Acquire->Relaxed in fn f [W3]",
            "7 load Acquire->Relaxed in fn f",
            "9 load Acquire->Relaxed in fn g",
        ];
        assert_eq!(names(source), found);
    }

    #[test]
    fn an_allowed_fault_is_matched_by_its_call() {
        let allowed = |function| Allowed {
            file: "f.rs",
            function,
            text: "compare_exchange(1",
            fault: "AcqRel->Release",
            why: "",
        };
        let source =
            "fn f() {\n a.compare_exchange(0, 1, AcqRel, Relaxed);\n a.compare_exchange(1,\n 2,\n AcqRel, Relaxed);\n}";
        let faults = orderings("f.rs", source);
        let matches = |function| faults.iter().map(|fault| allowed(function).matches(fault)).collect::<Vec<_>>();
        assert_eq!(matches("f"), [false, false, false, true]);
        assert_eq!(matches("g"), [false; 4]);
    }

    #[test]
    fn a_stale_or_ambiguous_text_is_an_error() {
        const WAKE: Logic = Logic { file: "f.rs", name: "no wake", find: "wake();", replace: "", model: "m" };
        static ENTRY: Logic = WAKE;
        assert_eq!(
            logic(&ENTRY, "a();\nwake();").map(|fault| (fault.line, fault.plant("a();\nwake();"))),
            Ok((2, "a();\n".into()))
        );
        assert!(logic(&ENTRY, "a();").is_err());
        assert!(logic(&ENTRY, "wake(); wake();").is_err());
    }
}
