//! Do job files of other systems run as they say?

use crate::pool::{Desk, Pool};

#[test]
fn a_submit_file_of_htcondor_runs_a_program_with_the_files_of_each_task() {
    let desk = Desk::new();
    desk.script(
        "count.sh",
        "#!/bin/sh\n[ \"$MODE\" = 'two words' ] || exit 9\ncat \"$2\" tables/t > sum.$1\necho \"$@\"\n",
    );
    desk.write("data/a b.txt", "a\n")
        .write("data/c.txt", "c\n")
        .write("tables/t", "t\n");
    desk.write(
        "job.sub",
        "executable = count.sh\n\
         arguments = \"$(Process) '$Fnx(file)' last\"\n\
         environment = \"MODE='two words'\"\n\
         transfer_input_files = $(file), tables\n\
         transfer_output_files = sum.$(Process)\n\
         output = $(Cluster).out\n\
         request_memory = 256\n\
         queue file matching data/*.txt\n",
    );
    let out = Pool::shared().gleaner(&desk, &["submit", "job.sub", "--wait", "--results", "out"]);
    assert!(
        out.stderr.contains("without effect here: output"),
        "{out:?}"
    );
    out.exits(0);
    assert_eq!(desk.read("out/0/sum.0"), "a\nt\n");
    assert_eq!(desk.read("out/1/sum.1"), "c\nt\n");
    assert_eq!(desk.read("out/0/stdout"), "0 a b.txt last\n");
    assert_eq!(desk.read("out/1/stdout"), "1 c.txt last\n");
}

#[test]
fn arguments_from_a_list_may_be_more_or_fewer() {
    let desk = Desk::new();
    desk.script("say.sh", "#!/bin/sh\necho \"$#:$*\"\n");
    desk.write("list", "one\n\"'two words' 'it''s'\"\n# none\n--x=1 2 3\n");
    let text = "executable = say.sh\nqueue arguments from list\n";
    desk.write("job.sub", text);
    let submit = ["submit", "job.sub", "--wait", "--results", "out"];
    Pool::shared().gleaner(&desk, &submit).exits(0);
    let said = (0..3).map(|task| desk.read(&format!("out/{task}/stdout")));
    let said: Vec<String> = said.collect();
    assert_eq!(said, ["1:one\n", "2:two words it's\n", "3:--x=1 2 3\n"]);
}

#[test]
fn a_submit_file_that_cannot_be_read_says_where_and_why() {
    let desk = Desk::new();
    desk.write("job.sub", "executable = /bin/true\nargumnets = 1\nqueue\n");
    Pool::shared()
        .gleaner(&desk, &["submit", "job.sub"])
        .exits(2)
        .complains_of(&["job.sub:2:", "did you mean `arguments`"]);
}

#[test]
fn a_job_description_of_ourgrid_runs_each_of_its_tasks() {
    let desk = Desk::new();
    desk.script("tool", "#!/bin/sh\ncat \"$1\" - > made; echo task $TASK\n");
    desk.write("in/1", "one\n").write("in/2", "two\n");
    desk.write(
        "job.jdf",
        "job :\n  label : sums\n  requirements : ( os == linux )\n\
         \x20 init : store tool $STORAGE/tool\n         put in/$TASK part\n\
         \x20 final : get $PLAYPEN/made made.$TASK\n\
         task :\n  remote : echo a | tool part\n\
         task :\n  remote : echo b | tool part\n",
    );
    let submit = ["submit", "job.jdf", "--wait", "--results", "out"];
    Pool::shared().gleaner(&desk, &submit).exits(0);
    assert_eq!(desk.read("out/0/made"), "one\na\n");
    assert_eq!(desk.read("out/1/made"), "two\nb\n");
    assert_eq!(desk.read("out/1/stdout"), "task 2\n");
}
