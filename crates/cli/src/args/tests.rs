//! What the command line takes and refuses.

use super::*;
use clap::CommandFactory as _;

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(line.split_whitespace()).map_err(|problem| problem.to_string())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_the_contract_names_is_taken() {
    for line in [
        "gleaner run -- uname -a",
        "gleaner run --input a --input b=c --output *.txt --cpus 2 --memory 1GiB --time 30min --name x --json -- a --b",
        "gleaner run --image i --engine process --detach -- a",
        "gleaner map *.txt -- wc {}",
        "gleaner map --lines names -- echo {}",
        "gleaner map --lines=names -- echo {}",
        "gleaner submit job.toml",
        "gleaner submit job.toml --wait --json",
        "gleaner jobs --json",
        "gleaner jobs --quiet",
        "gleaner job 7 --json",
        "gleaner tasks 7 --state failed",
        "gleaner wait 7",
        "gleaner logs 7.0 -f",
        "gleaner logs 7.0 --stderr",
        "gleaner fetch 7",
        "gleaner fetch 7 out",
        "gleaner cancel 7",
        "gleaner cancel 7.3",
        "gleaner pause 7",
        "gleaner resume 7",
        "gleaner retry 7.3",
        "gleaner explain 7",
        "gleaner nodes --json",
        "gleaner node b12 drain",
        "gleaner node 3",
        "gleaner image import vina:1.2 vina.tar.gz --max-size 64GiB --json",
        "gleaner image list --quiet",
        "gleaner image remove vina:1.2",
        "gleaner token new --kind node --name b12",
        "gleaner token list --json",
        "gleaner token revoke 4",
        "gleaner token revoke 4 --json",
        "gleaner image remove vina:1.2 --quiet",
        "gleaner map --quiet *.txt -- wc {}",
        "gleaner jobs --color never",
        "gleaner --color=always node b12 pause",
        "gleaner completions bash",
        "gleaner man out",
        "gleaner dev --data d --nodes 3 --listen 127.0.0.1:0",
        "gleaner server --data d --listen 0.0.0.0:8421 --store sqlite:x --blobs file:y",
        "gleaner agent --server https://a:1 --token-file t --data d --name n --policy continuous",
        "gleaner owner status --json",
        "gleaner owner pause",
        "gleaner owner pause 1h",
        "gleaner owner pause until 18:00 --node b12",
        "gleaner owner --data d resume",
        "gleaner owner limits --cpus 2 --battery no --memory 1GiB --policy night --celsius none",
        "gleaner owner history --days 3 --json",
        "gleaner owner history --quiet",
        "gleaner owner -q status",
        "gleaner owner why",
        "gleaner owner page --print",
        "gleaner owner top",
        "gleaner owner record export",
        "gleaner server --data d --node-settings n.toml",
        "gleaner agent --server https://a:1 --data d --policy idle-after --owner-page 8422",
        "gleaner doctor --json",
        "gleaner bench dispatch --beside ray,hq --json",
        "gleaner bench overhead",
        "gleaner bench scale --nodes 1000 --tasks 5000 --seconds 10 --connections 8 --json",
        "gleaner sim --nodes 10 --days 0.5 --seed 7 --policy night --faults --json",
        "gleaner --config c.toml jobs",
        "gleaner jobs --config c.toml",
    ] {
        if let Err(problem) = parse(line) {
            panic!("{line}: {problem}");
        }
    }
}

#[test]
fn wrong_usage_says_what_to_write() {
    for (line, said) in [
        ("gleaner run uname", "--"),
        ("gleaner run", "CMD"),
        ("gleaner run --memory lots -- a", "like \"512MiB\""),
        ("gleaner run --cpus 0 -- a", "a number from 0.001"),
        (
            "gleaner run --engine docker -- a",
            "process, vm, wasm or auto",
        ),
        ("gleaner bench dispatch --beside ray,slurm", "ray, hq"),
        ("gleaner job seven", "is not a job id"),
        ("gleaner logs 7.x", "JOB.INDEX"),
        ("gleaner cancel 7.x", "JOB.INDEX"),
        (
            "gleaner tasks 7 --state sleeping",
            "write one of waiting, ready",
        ),
        ("gleaner node b12 explode", "pause, resume, drain, evict"),
        ("gleaner owner limits --policy lazy", "idle-after"),
        ("gleaner owner history --days 99", "1..=30"),
        (
            "gleaner agent --server a --data d --policy lazy",
            "idle-after",
        ),
        ("gleaner jobs --json --quiet", "cannot be used with"),
        ("gleaner cancel 7 --json --quiet", "cannot be used with"),
        (
            "gleaner owner history --json --quiet",
            "cannot be used with",
        ),
        (
            "gleaner server --data d --listen here",
            "as in 127.0.0.1:8421",
        ),
        ("gleaner dev --listen 8421", "as in 127.0.0.1:8421"),
        ("gleaner sim --days -1", "a number of days above 0"),
        ("gleaner jobs --color sometimes", "auto, always, never"),
        ("gleaner job", "<J>"),
        ("gleaner jbos", "jobs"),
    ] {
        let found = parse(line).unwrap_err();
        assert!(found.contains(said), "{line}: {found}");
    }
}
