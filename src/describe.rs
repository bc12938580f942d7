//! Macros for the texts of types: `Debug` of handles, and `Display` of errors.
#![forbid(unsafe_code)]

/// Implements `Debug`: the type's name, and these fields and methods of it.
macro_rules! impl_debug {
    ($type:ident $(<$($parameter:ident),+>)? $(, $name:ident $(($($none:tt)*))?)*) => {
        impl $(<$($parameter),+>)? std::fmt::Debug for $type $(<$($parameter),+>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($name), &self.$name $(($($none)*))?))*
                    .finish_non_exhaustive()
            }
        }
    };
}

/// Makes a type an error, with a text for each variant. The type may be generic over the value that it gives back: then
/// its `Debug` shows the variant alone, so that the value need not implement `Debug`.
macro_rules! impl_error {
    ($error:ident<T>: $($variant:pat => $debug:literal $text:literal),+) => {
        impl<T> std::fmt::Debug for $error<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($variant => $debug),+ })
            }
        }
        impl_error!([<T>] $error: $($variant => $text),+);
    };
    ($([$($generics:tt)+])? $error:ident: $($variant:pat => $text:literal),+) => {
        impl $($($generics)+)? std::fmt::Display for $error $($($generics)+)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self { $($variant => write!(f, $text)),+ }
            }
        }
        impl $($($generics)+)? std::error::Error for $error $($($generics)+)? {}
    };
}
