//! The macro that makes the `main` of a test binary.

/// Makes the `main` of a test binary with `harness = false` out of functions that return a
/// [`Verdict`](crate::oracle::Verdict), and the [`Need`](crate::oracle::Need)s of each.
///
/// A binary that runs itself as a child process says so first: `child worker;` names a function that yields the
/// exit code when it finds that it is one. `durability Fixture;` stands there instead for a cache whose
/// [durability](crate::durability) is judged, and adds those tests to the list, which may be empty then.
#[macro_export]
macro_rules! oracle_tests {
    (child $child:path; $($checks:tt)+) => {
        fn main() -> ::std::process::ExitCode {
            let as_child: ::std::option::Option<::std::process::ExitCode> = $child();
            as_child.unwrap_or_else(|| $crate::oracle::run($crate::oracle_tests!(@list $($checks)+)))
        }
    };
    (durability $fixture:expr; $($checks:tt)*) => {
        fn main() -> ::std::process::ExitCode {
            $crate::durability::child(&[&$fixture]).unwrap_or_else(|| {
                let mut checks = $crate::__durability_tests! { __checks ($fixture) }.to_vec();
                checks.extend_from_slice($crate::oracle_tests!(@list $($checks)*));
                $crate::oracle::run(&checks)
            })
        }
    };
    (@list $($check:ident needs [$($need:expr),* $(,)?];)*) => {
        &[$($crate::oracle::Check {
            name: stringify!($check),
            needs: &[$($need),*],
            run: $check,
        }),*]
    };
    ($($checks:tt)+) => {
        fn main() -> ::std::process::ExitCode {
            $crate::oracle::run($crate::oracle_tests!(@list $($checks)+))
        }
    };
}
