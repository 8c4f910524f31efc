//! Whole fleets: what must hold holds for every seed, and the same seed gives the same run.

#[cfg(test)]
mod tests {
    use gleaner_sim::{Failure, Options, Policy, Report, run};

    /// The report, or the failure with the command that shows it again.
    fn fleet(options: Options) -> Report {
        match run(&options) {
            Ok(report) => report,
            Err(failure) => panic!("{failure}"),
        }
    }

    fn faulty(nodes: u32, days: f64, seed: u64) -> Options {
        Options {
            nodes,
            days,
            seed,
            faults: true,
            ..Options::default()
        }
    }

    #[test]
    fn a_thousand_nodes_with_faults_lose_nothing_and_count_nothing_twice() {
        for seed in 1..=3 {
            let report = fleet(faulty(1000, 0.005, seed));
            // The run checks itself; these say that there was something to check.
            let trouble = report.link_breaks + report.power_losses + report.agent_kills;
            assert!(trouble > 50 && report.server_kills >= 1, "{report:?}");
            assert!(
                report.tasks_done > 5_000 && report.attempts_lost > 0,
                "{report:?}"
            );
            let over = report.tasks_done + report.tasks_failed + report.tasks_cancelled;
            assert_eq!(over, report.tasks);
        }
    }

    #[test]
    fn a_small_fleet_passes_every_check_after_every_single_step() {
        for seed in 1..=3 {
            let report = fleet(Options {
                check_all: true,
                ..faulty(20, 0.01, seed)
            });
            assert_eq!(report.checks, report.server_steps);
        }
    }

    #[test]
    fn many_small_fleets_with_much_trouble() {
        for seed in 100..130 {
            let report = fleet(faulty(8, 0.02, seed));
            assert!(report.tasks_done > 0, "{report:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_seed_another() {
        let first = fleet(faulty(100, 0.01, 7));
        assert_eq!(fleet(faulty(100, 0.01, 7)), first);
        let other = fleet(faulty(100, 0.01, 8));
        assert_ne!(other.hash, first.hash);
        assert_eq!(first.hash.len(), 16);
    }

    #[test]
    fn shares_are_kept_in_a_large_fleet_that_settles() {
        let report = fleet(Options {
            faults: false,
            ..faulty(400, 0.02, 5)
        });
        assert!(report.share_samples > 5, "{report:?}");
        assert!(report.share_gap < 0.1, "{report:?}");
        assert_eq!((report.attempts_lost, report.tasks_failed), (0, 0));
        assert_eq!(report.tasks_done, report.tasks);
    }

    #[test]
    fn continuous_harvests_more_than_every_other_policy() {
        let share = |policy| {
            let options = Options {
                faults: false,
                policy,
                ..faulty(30, 1.0, 3)
            };
            fleet(options).harvested_share
        };
        let shares: Vec<f64> = Policy::ALL.iter().map(|policy| share(*policy)).collect();
        assert!(shares[0] > 0.9 && shares[0] <= 1.0, "{shares:?}");
        assert!(shares[0] > shares[1] && shares[1] > shares[2], "{shares:?}");
        assert!(shares[2] > shares[3] && shares[3] > 0.1, "{shares:?}");
    }

    #[test]
    fn the_report_is_one_small_object() {
        let report = fleet(faulty(10, 0.005, 1));
        let text = serde_json::to_string(&report).unwrap();
        assert!(
            text.starts_with("{\"nodes\":10") && text.len() < 4096,
            "{text}"
        );
        assert!(text.contains("\"steps_per_second\":null") && text.contains("\"hash\":\""));
    }

    #[test]
    fn a_failure_says_how_to_see_it_again() {
        let options = Options {
            policy: Policy::IdleAfter,
            ..faulty(1000, 0.5, 42)
        };
        let failure = Failure {
            what: "task 1.2 leased twice".into(),
            step: 17,
            seconds: 3,
            replay: options.replay(),
        };
        let text = failure.to_string();
        assert!(
            text.starts_with("task 1.2 leased twice\nat step 17"),
            "{text}"
        );
        let command = "gleaner sim --nodes 1000 --days 0.5 --seed 42 --policy idle-after --faults";
        assert!(text.ends_with(command), "{text}");
    }
}
