//! `gleaner owner limits`: shows and sets what the owner allows, which is never more than what
//! the admin allows.

use crate::out::Failure;
use gleaner_agent::owner::{Agent, Answer, Ask, NodeSettings};
use gleaner_model::{Bytes, Cpus, Policy, Span};
use std::str::FromStr;

/// Show your limits and the admin's, or set yours; the word none takes one back
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// When to work: continuous, screensaver, idle-after or night
    #[arg(long, value_name = "P", value_parser = choice_of(policy))]
    policy: Option<Choice<Policy>>,
    /// Hours in which it may work, as in "mon-fri 18:00-08:00"; may be given more than once
    #[arg(long, value_name = "HOURS")]
    hours: Vec<String>,
    /// Whether it works on battery: yes or no
    #[arg(long, value_name = "YES", value_parser = choice_of(yes))]
    battery: Option<Choice<bool>>,
    /// Most processors for tasks while you use the PC
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = choice_of(parse::<Cpus>))]
    cpus: Option<Choice<Cpus>>,
    /// Most processors for tasks at any time
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = choice_of(parse::<Cpus>))]
    cpus_max: Option<Choice<Cpus>>,
    /// Most memory for tasks
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = choice_of(parse::<Bytes>))]
    memory: Option<Choice<Bytes>>,
    /// Most disk for tasks
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true, value_parser = choice_of(parse::<Bytes>))]
    disk: Option<Choice<Bytes>>,
    /// Temperature that ends work, in degrees Celsius
    #[arg(long, value_name = "DEGREES", allow_negative_numbers = true, value_parser = choice_of(degrees))]
    celsius: Option<Choice<i16>>,
    /// How long tasks may stay frozen in memory before they are given back
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = choice_of(parse::<Span>))]
    frozen: Option<Choice<Span>>,
    /// Take all of your limits back
    #[arg(long)]
    reset: bool,
}

/// A value, or none of ours.
#[derive(Debug, Clone)]
struct Choice<T>(Option<T>);

fn choice_of<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<Choice<T>, String> + Clone {
    move |text| match text {
        "none" => Ok(Choice(None)),
        text => parse(text).map(|value| Choice(Some(value))),
    }
}

fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn policy(text: &str) -> Result<Policy, String> {
    Policy::from_word(text).ok_or_else(|| {
        let words: Vec<&str> = Policy::ALL.iter().map(|policy| policy.as_str()).collect();
        format!("write one of {}, or none", words.join(", "))
    })
}

fn yes(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("write yes, no or none".to_owned()),
    }
}

fn degrees(text: &str) -> Result<i16, String> {
    text.parse()
        .map_err(|_| "write whole degrees Celsius, as in 75, or none".to_owned())
}

fn put<T>(into: &mut Option<T>, choice: Option<Choice<T>>) {
    if let Some(Choice(value)) = choice {
        *into = value;
    }
}

impl Args {
    fn changes(&self) -> bool {
        self.reset
            || self.policy.is_some()
            || !self.hours.is_empty()
            || self.battery.is_some()
            || self.cpus.is_some()
            || self.cpus_max.is_some()
            || self.memory.is_some()
            || self.disk.is_some()
            || self.celsius.is_some()
            || self.frozen.is_some()
    }

    /// Asks for the limits, or for others.
    pub(super) fn ask(self, agent: &Agent) -> Result<Answer, Failure> {
        let answer = agent.ask(&Ask::Limits)?;
        let Answer::Limits(view) = &answer else {
            return Ok(answer);
        };
        if !self.changes() {
            return Ok(answer);
        }
        let limits = self.over(view.owner.clone());
        Ok(agent.ask(&Ask::SetLimits { limits })?)
    }

    /// These changes over the limits that hold.
    fn over(self, before: NodeSettings) -> NodeSettings {
        let mut limits = if self.reset {
            NodeSettings::default()
        } else {
            before
        };
        put(&mut limits.policy, self.policy);
        put(&mut limits.battery, self.battery);
        put(&mut limits.cpus, self.cpus);
        put(&mut limits.cpus_max, self.cpus_max);
        put(&mut limits.memory, self.memory);
        put(&mut limits.disk, self.disk);
        put(&mut limits.celsius, self.celsius);
        put(&mut limits.frozen, self.frozen);
        if !self.hours.is_empty() {
            limits.hours = self.hours;
            limits.hours.retain(|hours| hours != "none");
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn over(line: &[&str], before: NodeSettings) -> NodeSettings {
        let line = Line::parse_from([&["limits"], line].concat());
        assert!(line.args.changes());
        line.args.over(before)
    }

    #[test]
    fn limits_are_set_one_by_one_and_taken_back_with_none() {
        let first = over(
            &[
                "--cpus",
                "2",
                "--hours",
                "mon-fri 18:00-08:00",
                "--hours",
                "sat-sun",
            ],
            NodeSettings::default(),
        );
        assert_eq!(first.cpus, Some(Cpus { milli: 2000 }));
        assert_eq!(first.hours.len(), 2);
        let second = over(
            &["--memory", "1GiB", "--battery", "no", "--cpus", "none"],
            first,
        );
        assert_eq!((second.cpus, second.battery), (None, Some(false)));
        assert_eq!(
            (second.memory, second.hours.len()),
            (Some(Bytes(1 << 30)), 2)
        );
        let third = over(&["--hours", "none"], second.clone());
        assert!(third.hours.is_empty() && third.memory.is_some());
        let last = over(&["--reset", "--policy", "night"], second);
        let night = NodeSettings {
            policy: Some(Policy::Night),
            ..NodeSettings::default()
        };
        assert_eq!(last, night);
    }

    #[test]
    fn wrong_values_say_what_to_write() {
        for (line, said) in [
            (["--policy", "lazy"], "idle-after"),
            (["--battery", "maybe"], "yes, no or none"),
            (["--memory", "lots"], "512MiB"),
            (["--memory", "-5"], "512MiB"),
            (["--celsius", "hot"], "Celsius"),
            (["--cpus", "-1"], "0.5"),
            (["--cpus", "0"], "0.5"),
            (["--cpus-max", "NaN"], "0.5"),
            (["--frozen", "-1"], "30min"),
        ] {
            let line = [&["limits"][..], &line].concat();
            let found = Line::try_parse_from(line).unwrap_err().to_string();
            assert!(found.contains(said), "{found}");
        }
    }
}
