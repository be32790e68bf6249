//! The test binary: runs the checks whose needs are met, reports the others.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use super::need;
use super::verdict::Check;

impl Check {
    fn trial(self, required: bool) -> Trial {
        let missing: Vec<_> = self.needs.iter().filter_map(|need| Some((need, need.missing()?))).collect();
        let required = required && missing.iter().any(|(need, _)| need.is_required());
        let reason = missing.iter().map(|(_, reason)| reason.as_str()).collect::<Vec<_>>().join("; ");
        if missing.is_empty() {
            let run =
                move || need::with_needs(self.needs, self.run).map_err(|failure| Failed::from(failure.0));
            return Trial::test(self.name, run);
        }
        // The harness has no place for a reason but the kind, which it shows in front of the name.
        let failed = Failed::from(reason.clone());
        Trial::test(self.name, move || Err(failed)).with_kind(reason).with_ignored_flag(!required)
    }
}

/// The `main` of a test binary: what [`oracle_tests!`](crate::oracle_tests) calls. Takes libtest's arguments.
pub fn run(checks: &[Check]) -> ExitCode {
    let required = std::env::var_os("PLYFOLD_ORACLES").is_some_and(|value| value == "require");
    let trials = checks.iter().map(|check| check.trial(required)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Failure, Need, Run, Verdict};

    const ABSENT: Need = Need::Tool { name: "plyfold-no-such-tool", package: "nothing" };

    fn undeclared() -> Verdict {
        Run::new("true").success()?;
        Ok(())
    }

    #[test]
    fn a_check_that_runs_a_program_without_a_need_fails() {
        const TRUE: Need = Need::Tool { name: "true", package: "coreutils" };
        let without = Check { name: "without", needs: &[], run: undeclared }.trial(true);
        let with = Check { name: "with", needs: &[TRUE], run: undeclared }.trial(true);
        let conclusion = libtest_mimic::run(&quiet(), vec![without, with]);
        assert_eq!((conclusion.num_passed, conclusion.num_failed), (1, 1));
    }

    fn unreachable() -> Verdict {
        panic!("ran without its need");
    }

    #[test]
    fn a_check_without_its_oracle_is_ignored_or_fails_with_the_reason() {
        let check = Check { name: "check", needs: &[ABSENT], run: unreachable };
        let ignored = check.trial(false);
        assert!(ignored.has_ignored_flag());
        assert_eq!(ignored.kind(), "plyfold-no-such-tool is missing: install nothing");
        let required = check.trial(true);
        assert!(!required.has_ignored_flag());
        assert!(libtest_mimic::run(&quiet(), vec![required]).has_failed());
    }

    #[test]
    fn a_check_with_its_oracle_runs() {
        let passes = Check { name: "passes", needs: &[], run: || Ok(()) }.trial(false);
        let fails = Check { name: "fails", needs: &[], run: || Err(Failure::new("no")) }.trial(false);
        assert_eq!((passes.kind(), passes.has_ignored_flag()), ("", false));
        let conclusion = libtest_mimic::run(&quiet(), vec![passes, fails]);
        assert_eq!((conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored), (1, 1, 0));
    }

    fn quiet() -> Arguments {
        Arguments { quiet: true, logfile: Some("/dev/null".into()), ..Arguments::default() }
    }
}
