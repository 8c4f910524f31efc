//! Whole fleets: what must hold holds for every seed, and the same seed gives the same run.

#[cfg(test)]
mod tests {
    use gleaner_model::{Span, UsageHistogram};
    use gleaner_sim::{Failure, Options, Policy, Regime, Report, Trace, run};
    use std::fmt::Write as _;
    use std::sync::Arc;

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
        // Owners switch PCs off: that costs attempts, not tasks.
        assert!(report.attempts_lost <= 4 * report.power_offs, "{report:?}");
        assert_eq!(report.tasks_failed, 0);
        assert_eq!(report.tasks_done, report.tasks);
    }

    #[test]
    fn continuous_harvests_more_than_every_other_policy() {
        let share = |policy: &Policy| {
            let options = Options {
                faults: false,
                regime: Regime::Own(*policy),
                ..faulty(30, 1.0, 3)
            };
            fleet(options).harvested_share
        };
        let shares: Vec<f64> = Policy::ALL.iter().map(share).collect();
        assert!(shares[0] > 0.9 && shares[0] <= 1.0, "{shares:?}");
        assert!(shares[0] > shares[1] && shares[1] > shares[2], "{shares:?}");
        assert!(shares[2] > shares[3] && shares[3] > 0.1, "{shares:?}");
    }

    fn replayed(text: &str, regime: Regime, nodes: u32) -> Report {
        let trace = Trace::parse("usage.csv", text).unwrap();
        fleet(Options {
            regime,
            trace: Some(Arc::new(trace)),
            faults: false,
            ..faulty(nodes, 1.0, 3)
        })
    }

    /// Five PCs on a Monday from 9 to 17 h: an hour of work with input, half an hour without.
    fn office_day() -> String {
        let mut text = "host,epoch_local_s,gap_s,cores,idle_frac,user_frac,load5,mem_total_mib,\
            mem_avail_mib,uptime_s,kb_events,mouse_events\n"
            .to_owned();
        for host in 0..5 {
            for bin in 0..=96 {
                let at = 1_767_571_200 + 9 * 3600 + bin * 300;
                let gap = if bin == 0 { "" } else { "300" };
                let (idle, keys) = if bin % 18 < 12 {
                    ("0.8", 40)
                } else {
                    ("0.95", 0)
                };
                writeln!(
                    text,
                    "{host},{at},{gap},4,{idle},0.1,0,8000,4000,1,{keys},0"
                )
                .unwrap();
            }
        }
        text
    }

    #[test]
    fn a_recorded_day_is_offered_as_each_policy_says() {
        let text = office_day();
        let offered = |regime| {
            let report = replayed(&text, regime, 5);
            // 8 hours of 4 processors on 5 PCs, of which owners leave 0.8 and 0.95.
            let idle = 5.0 * 4.0 * 3600.0 * (5.5 * 0.8 + 2.5 * 0.95);
            let found = report.idle_cpu_seconds;
            assert!((found / idle - 1.0).abs() < 0.02, "{found} of {idle}");
            assert_eq!((report.nodes, report.policy), (5, regime.as_str()));
            report.offered_share
        };
        // In half an hour without input, 20 min come after the first ten, 15 after the first 15.
        let free = |minutes: f64| minutes / 60.0 * 5.0 * 0.95 / (5.5 * 0.8 + 2.5 * 0.95);
        for (regime, least, most) in [
            (Regime::Own(Policy::Continuous), 0.97, 1.0),
            (
                Regime::Own(Policy::Screensaver),
                0.9 * free(20.0),
                1.1 * free(20.0),
            ),
            (
                Regime::Own(Policy::IdleAfter),
                0.9 * free(15.0),
                1.1 * free(15.0),
            ),
            (Regime::Own(Policy::Night), 0.0, 0.0),
            (Regime::PeerCondor, 0.9 * free(15.0), 1.1 * free(15.0)),
            (Regime::PeerBoinc, 0.97, 1.0),
        ] {
            let share = offered(regime);
            assert!(
                least <= share && share <= most,
                "{}: {share}",
                regime.as_str()
            );
        }
    }

    #[test]
    fn an_exported_histogram_is_replayed() {
        let mut usage = UsageHistogram::new(4);
        for hour in &mut usage.hours {
            hour.on_seconds = 36_000;
            hour.used_seconds = 9_000;
            hour.idle_permille_seconds = 36_000 * 900;
        }
        for _ in 0..10 {
            usage.idle_gaps.note(Span::seconds(60));
            usage.busy_runs.note(Span::seconds(20));
            usage.input_gaps.note(Span::seconds(2));
        }
        let text = serde_json::to_string(&usage).unwrap();
        let report = replayed(&text, Regime::Own(Policy::Continuous), 3);
        let all = 3.0 * 4.0 * 86_400.0;
        let idle = report.idle_cpu_seconds / all;
        assert!((idle - 0.9).abs() < 0.05, "{idle}");
        assert!(report.offered_share > 0.95, "{report:?}");
        let calm = replayed(&text, Regime::Own(Policy::Screensaver), 3);
        assert!(calm.offered_share < report.offered_share, "{calm:?}");
    }

    #[test]
    fn every_policy_sees_the_same_owners() {
        let idle = |regime| {
            let options = Options {
                faults: false,
                regime,
                ..faulty(20, 0.6, 9)
            };
            fleet(options).idle_cpu_seconds
        };
        let first = idle(Regime::ALL[0]);
        for regime in Regime::ALL {
            assert!((idle(regime) - first).abs() < 1.0, "{}", regime.as_str());
        }
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
            regime: Regime::Own(Policy::IdleAfter),
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
