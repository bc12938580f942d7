//! Rules that the compiler does not check: which module may import which, where unsafe code is allowed, and that the
//! models named in the file heads exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules in order: a module may import only modules above it.
const ORDER: &[&str] = &[
    "sync",
    "describe",
    "primitives::cache_padded",
    "primitives::waker_map",
    "primitives::framed",
    "primitives::waker_slot",
    "primitives::backoff",
    "primitives::budget",
    "primitives::attempt",
    "primitives::parker",
    "primitives::oneshot",
    "primitives::spsc",
    "primitives::join_error",
    "primitives::drop_queue",
    "primitives::cancel",
    "primitives::job",
    "context",
    "pool",
    "separate",
    "event_loop::timers",
    "event_loop::state",
    "event_loop::inbox",
    "event_loop::foreign",
    "event_loop::reactor",
    "event_loop::tasks",
    "event_loop::frames",
    "event_loop::task",
    "event_loop::handle",
    "event_loop",
    "time",
    "gather",
    "sync_await",
    "threaded",
    "iterable",
    "macros",
    "guide",
];

/// Every source file: its path below `src/`, and its text.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found.sort();
    assert!(found.len() > 8, "only {found:?} found");
    found
        .into_iter()
        .map(|path| (path.strip_prefix(&root).unwrap().into(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The position of a module path in the list. A path below a listed module counts as that module.
fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|known| module == *known || module.starts_with(&format!("{known}::")))
}

/// A file's module path: `primitives/spsc.rs` is `primitives::spsc`, `event_loop/mod.rs` is `event_loop`.
fn module_of(path: &Path) -> String {
    let parts: Vec<_> = path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    parts.join("::").trim_end_matches("::mod").to_owned()
}

/// The code without comment lines, and without the test modules at the top level.
fn code(text: &str) -> String {
    let mut in_tests = false;
    text.lines().filter(|line| !line.trim_start().starts_with("//")).fold(String::new(), |all, line| {
        in_tests |= line == "#[cfg(test)]";
        // An item at the top level ends with the first line that begins with a brace, or in its only line.
        let is_last = line.starts_with('}') || line.ends_with(';') && !line.starts_with(' ');
        let is_code = !in_tests;
        in_tests &= !is_last;
        if is_code { all + line + "\n" } else { all }
    })
}

/// All module paths that a file names with `crate::`, braces expanded one level: `crate::a::{b, c::D}` is `a::b`,
/// `a::c::D`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with('$')) {
        let rest = &code[at + "crate::".len()..];
        let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ':')).collect();
        match rest[path.len()..].strip_prefix('{') {
            Some(group) => {
                let group = &group[..group.find("};").expect("a group in a `use` ends with `};`")];
                found
                    .extend(group.split(',').map(|item| format!("{path}{}", item.trim_matches([' ', '\n', '{', '}']))));
            }
            None => found.push(path),
        }
    }
    found
}

/// How many characters a line of code may have on the rendered page, in a window of 1280 pixels.
const CODE_WIDTH: usize = 90;

/// Forbids: the end of a line of an example is cut off in the rendered documentation.
#[test]
fn examples_fit_their_pages() {
    let pages = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide")).unwrap();
    let pages = pages.map(|page| page.unwrap().path()).map(|path| (path.clone(), fs::read_to_string(path).unwrap()));
    let docs = sources().into_iter().map(|(path, text)| {
        let is_doc = |line: &&str| line.starts_with("///") || line.starts_with("//!");
        let lines = text.lines().map(str::trim_start).filter(is_doc);
        (path, lines.map(|line| line[3..].strip_prefix(' ').unwrap_or(&line[3..])).collect::<Vec<_>>().join("\n"))
    });
    let mut checked = 0;
    for (path, text) in pages.chain(docs) {
        let blocks = text.split("```").skip(1).step_by(2);
        // Skips the diagrams (`text` blocks): they are in the heads of private files, which have no rendered page.
        for block in blocks.filter(|block| !block.starts_with("text")) {
            // Skips the rest of the line with the fence, and the lines that rustdoc hides.
            for line in block.lines().skip(1).filter(|line| !line.starts_with("# ")) {
                assert!(line.chars().count() <= CODE_WIDTH, "{}: shorten the line: {line}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 500, "only {checked} lines found");
}

#[test]
fn imports_point_up() {
    let mut checked = 0;
    for (path, text) in sources() {
        let module = module_of(&path);
        if module == "lib" || module == "primitives" {
            continue; // These files only list modules.
        }
        let own = place(&module).unwrap_or_else(|| panic!("{}: not in the list of layers", path.display()));
        for import in imports(&code(&text)) {
            let other = place(&import)
                .unwrap_or_else(|| panic!("{}: `crate::{import}` names no module of the list", path.display()));
            let has_its_own_order = ["primitives", "event_loop"].iter().any(|folder| import.starts_with(folder));
            let inside = import.starts_with(module.split("::").next().unwrap()) && !has_its_own_order;
            assert!(other < own || inside, "{}: imports `crate::{import}`, which is below it", path.display());
            checked += 1;
        }
        assert!(!code(&text).contains("super::") || module == "sync", "{}: name modules by `crate::`", path.display());
    }
    assert!(checked > 20, "only {checked} imports found: is the search broken?");
}

#[test]
fn imports_and_test_modules_are_parsed() {
    assert_eq!(imports("use crate::sync::{self, Arc};"), ["sync::self", "sync::Arc"]);
    assert_eq!(imports("use crate::primitives::{oneshot, parker};"), ["primitives::oneshot", "primitives::parker"]);
    assert_eq!(imports("fn f() -> crate::pool::X"), ["pool::X"]);
    assert_eq!(place("primitives::spsc::Sender"), place("primitives::spsc"));
    assert_eq!(place("nonsense"), None);
    assert_eq!(module_of(Path::new("event_loop/mod.rs")), "event_loop");
    let module = "#[cfg(test)]\nmod tests {\n    use super::*;\n    fn f() {\n    }\n}\n";
    let rest = "fn g() {\n    h();\n}\n";
    assert_eq!(code(&format!("// A comment.\n{rest}{module}{rest}#[cfg(test)]\nuse std::fs;\n{rest}")), rest.repeat(3));
}

#[test]
fn unsafe_stays_in_the_core() {
    for (path, text) in sources() {
        let trusted = path.starts_with("primitives") || path == Path::new("sync.rs");
        // An attribute of `lib.rs` would apply to every module.
        let forbids = path == Path::new("lib.rs") || text.lines().any(|line| line == "#![forbid(unsafe_code)]");
        assert!(trusted || forbids, "{}: lacks `#![forbid(unsafe_code)]`", path.display());
        let is_unsafe = code(&text).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
        assert!(trusted || !is_unsafe, "{}: unsafe code outside the core", path.display());
    }
}

#[test]
fn lib_lists_the_modules_in_order() {
    let listed = |text: &str| -> Vec<String> {
        let names = text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "));
        names.filter_map(|name| name.strip_suffix(';')).map(str::to_owned).collect()
    };
    let all = sources();
    let text = |name: &str| &all.iter().find(|(path, _)| path == Path::new(name)).unwrap().1;
    let mut modules = Vec::new();
    for module in listed(text("lib.rs")) {
        if ["primitives", "event_loop"].contains(&module.as_str()) {
            let inside = listed(text(&format!("{module}/mod.rs")));
            modules.extend(inside.into_iter().map(|name| format!("{module}::{name}")));
        }
        if module != "primitives" {
            modules.push(module);
        }
    }
    let places: Vec<_> = modules.iter().map(|module| place(module).expect("every module is in the list")).collect();
    assert!(places.len() > 8 && places.is_sorted(), "{modules:?}");
}

/// Every model that a file head names, in the table of edges or the list of races, exists in the file's twin in
/// `loom-tests`; and the table in `loom-tests/README.md` has each edge.
#[test]
fn named_models_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let twins = root.join("loom-tests/tests");
    if !twins.exists() {
        return; // The packaged crate has no models.
    }
    let table = fs::read_to_string(root.join("loom-tests/README.md")).unwrap();
    let mut checked = 0;
    for (path, text) in sources() {
        let twin = match path.to_str().unwrap() {
            "pool/mod.rs" => Path::new("pool.rs"),
            "pool/map.rs" => Path::new("map.rs"),
            "primitives/cancel.rs" => Path::new("job.rs"),
            "iterable/mod.rs" | "iterable/generator.rs" | "pool/stream.rs" => Path::new("iterable.rs"),
            "time.rs" | "gather.rs" | "sync_await.rs" => Path::new("event_loop.rs"),
            "primitives/mod.rs"
            | "primitives/cache_padded.rs"
            | "primitives/waker_map.rs"
            | "primitives/framed.rs"
            | "primitives/backoff.rs"
            | "primitives/budget.rs"
            | "primitives/attempt.rs"
            | "primitives/drop_queue.rs"
            | "primitives/join_error.rs" => continue,
            _ if path.starts_with("event_loop") => Path::new("event_loop.rs"),
            _ if path.starts_with("primitives") => Path::new(path.file_name().unwrap()),
            _ => continue,
        };
        let models = fs::read_to_string(twins.join(twin)).unwrap();
        // Each item of a list, with its continuation lines, is one line here.
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines().take_while(|line| line.is_empty() || line.starts_with("//")) {
            let line = line.trim_start_matches(['/', '!']);
            match lines.last_mut() {
                Some(item) if line.starts_with("   ") && item.starts_with(" * ") => *item += &line[2..],
                _ => lines.push(line.to_owned()),
            }
        }
        for line in &lines {
            // The last column of a table row, or the text after the last colon of a list item.
            let line = line.trim_start().trim_end_matches([' ', '|', '.']);
            let is_edge = line.starts_with("| ") && line[2..].starts_with(char::is_uppercase) && line.contains("| `");
            let named = if is_edge {
                let columns: Vec<_> = line.split('|').map(str::trim).collect();
                let stem = path.file_stem().unwrap().to_str().unwrap();
                let row = format!("| `{stem}` | {} | {} | {} |", columns[1], columns[4], columns[5]);
                assert!(table.contains(&row), "loom-tests/README.md lacks the row {row}");
                line.rsplit('|').next()
            } else if line.starts_with("* ") {
                line.rsplit_once(": ").map(|(_, names)| names)
            } else {
                None
            };
            for name in named.unwrap_or_default().split(',') {
                let Some(name) = name.trim().strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
                    continue;
                };
                let (place, name) = name.strip_prefix("tests::").map_or((&models, name), |name| (&text, name));
                assert!(place.contains(&format!("fn {name}()")), "{}: there is no `{name}`", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "only {checked} names found: is the search broken?");
}
