//! What every back end promises, asked of each of them.

use super::*;
use gleaner_core::{
    JobCost, JobRow, LeaseRow, MergeKind, Need, NewJob, NodeRow, Saved, UserRow, fresh_job_row,
};
use gleaner_model::{
    AttemptState, Bytes, Cpus, EngineChoice, IntervalSet, JobState, LeaseId, Retry, TaskState,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

fn new_job(count: u32) -> NewJob {
    NewJob {
        user: UserId(3),
        name: "näme".to_owned(),
        priority: -5,
        count,
        need: Need {
            cpus: Cpus { milli: 1500 },
            memory: Bytes(u64::MAX),
            disk: Bytes(7),
            engine: EngineChoice::Wasm,
            image: false,
            arch: Some("x86_64".to_owned()),
            labels: BTreeMap::from([("room".to_owned(), "b12".to_owned())]),
            saves: false,
        },
        retry: Retry {
            attempts: 2,
            max_evictions: 9,
        },
        merge: MergeKind::Concat,
        body: b"the submission".to_vec(),
    }
}

fn at(ms: u64) -> Time {
    Time { ms }
}

fn attempt(job: u64, index: u32, number: u32, over: Option<TaskState>) -> AttemptRow {
    let content = format!("content {job}.{index}.{number}");
    AttemptRow {
        attempt: TaskId::new(JobId(job), index).attempt(number),
        node: NodeId(2),
        state: match over {
            Some(TaskState::Done) => AttemptState::Finished,
            _ => AttemptState::Failed,
        },
        at: at(5000 + u64::from(index)),
        counts: over != Some(TaskState::Done),
        no_program: number == 2,
        task_over: over,
        record: Envelope::encode(b"{}", &[content.as_bytes(), b""]),
    }
}

fn checkpoint(job: u64, index: u32, number: u32) -> CheckpointRow {
    let own = digest(&format!("saved {job}.{index}.{number}"));
    CheckpointRow {
        attempt: TaskId::new(JobId(job), index).attempt(number),
        saved: Saved {
            taken: at(4000 + u64::from(number)),
            content: own,
            machine: (number == 2).then(|| "q35 x86-64-v2".to_owned()),
            blobs: vec![own, digest("saved by all"), own],
            record: format!("record {number}").into_bytes(),
        },
        count: number * 10,
        stalls: number,
        progress: number,
    }
}

fn digest(content: &str) -> Digest {
    Digest(*blake3::hash(content.as_bytes()).as_bytes())
}

/// Rows of every kind, with values at the edges of their types.
fn rows() -> Vec<Row> {
    let job = |id: u64| JobRow {
        state: JobState::Running,
        reason: "tasks run".to_owned(),
        paused: true,
        started: Some(at(2)),
        failed: [0, 1, 7].into_iter().collect(),
        cancelled: IntervalSet::from_range(100, 1000),
        base: 4,
        cost: JobCost {
            ends: 7.0,
            cpu_seconds: 0.1,
            system_seconds: 1e-9,
            faults: 1e15,
            busy_seconds: 3600.5,
            guest_seconds: 12.5,
            guest_system_seconds: 0.25,
        },
        ..fresh_job_row(JobId(id))
    };
    vec![
        Row::NewJob(JobId(1), at(1000), new_job(1_000_000)),
        Row::NewJob(JobId(2), at(2000), new_job(1)),
        Row::NewJob(JobId(3), at(3000), new_job(5)),
        Row::Job(job(1)),
        Row::Job(JobRow {
            state: JobState::Done,
            ended: Some(at(9_999_999)),
            merged: true,
            ..job(2)
        }),
        Row::Lease(LeaseRow {
            lease: LeaseId(70),
            node: NodeId(u32::MAX),
            job: JobId(1),
            tasks: [5, 6, 9].into_iter().collect(),
            numbers: BTreeMap::from([(6, 2), (9, 3)]),
            width: 8,
        }),
        Row::Lease(LeaseRow {
            lease: LeaseId(71),
            node: NodeId(1),
            job: JobId(1),
            tasks: IntervalSet::from_range(10, 200),
            numbers: BTreeMap::new(),
            width: 1,
        }),
        Row::LeaseOver(LeaseId(71)),
        Row::Checkpoint(checkpoint(1, 3, 1)),
        Row::Checkpoint(checkpoint(1, 3, 2)),
        Row::Checkpoint(checkpoint(1, 5, 1)),
        Row::CheckpointOver(TaskId::new(JobId(1), 5)),
        Row::Checkpoint(checkpoint(2, 0, 1)),
        Row::Attempt(attempt(1, 4, 1, None)),
        Row::Attempt(attempt(1, 4, 2, None)),
        Row::Forgiven(JobId(1), vec![(4, 2)]),
        Row::Attempt(attempt(1, 4, 3, Some(TaskState::Failed))),
        Row::Attempt(attempt(1, 2, 1, Some(TaskState::Done))),
        Row::Attempt(attempt(2, 0, 1, Some(TaskState::Done))),
        Row::Node(NodeRow {
            node: NodeId(2),
            paused: true,
            draining: false,
        }),
        Row::User(UserRow {
            user: UserId(3),
            used: 1234.5,
            at: at(4000),
        }),
    ]
}

fn image(name: &str, content: &str) -> ImageRow {
    ImageRow {
        name: name.to_owned(),
        blob: BlobRef {
            digest: digest(content),
            size: 1 << 40,
        },
        created: at(7),
        user: UserId(3),
        note: "directory".to_owned(),
    }
}

fn server_rows() -> Vec<ServerRow> {
    let token = TokenRow {
        id: 1,
        hash: [9; 32],
        kind: TokenKind::Node,
        name: "room b12".to_owned(),
        user: None,
        created: at(1),
        revoked: false,
    };
    let file = OutputFile {
        name: "all.txt".to_owned(),
        blob: BlobRef {
            digest: digest("merged"),
            size: u64::MAX,
        },
        mode: 0o644,
    };
    vec![
        ServerRow::User(UserId(3), "eva".to_owned()),
        ServerRow::Token(token.clone()),
        ServerRow::Token(TokenRow {
            id: 2,
            hash: [8; 32],
            kind: TokenKind::Admin,
            user: Some(UserId(3)),
            revoked: true,
            ..token
        }),
        ServerRow::Node {
            node: NodeId(2),
            identity: "0011".to_owned(),
            name: "pc".to_owned(),
        },
        ServerRow::NodeDone(NodeId(2), 12),
        ServerRow::JobCpu(JobId(1), 0.25),
        ServerRow::Merged(JobId(2), file),
        ServerRow::Ref(JobId(1), digest("needed")),
        ServerRow::Ref(JobId(2), digest("needed")),
        ServerRow::Image(image("vina", "image")),
        ServerRow::Image(image("gone", "gone")),
        ServerRow::ImageGone("gone".to_owned()),
    ]
}

/// Runs one check against every back end, each empty.
fn each(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::new());
    let dir = tempfile::tempdir().unwrap();
    check(&SqliteStore::open(&dir.path().join("store.sqlite")).unwrap());
}

#[test]
fn rows_of_every_kind_come_back_as_the_brain_understands_them() {
    let mut book = gleaner_core::Book::new();
    rows().iter().for_each(|row| book.apply(row));
    each(|store| {
        store.commit(&rows(), &server_rows()).unwrap();
        let loaded = store.load().unwrap();
        assert_eq!(loaded.snapshot, book.snapshot());
        assert_eq!(loaded.users, [(UserId(3), "eva".to_owned())]);
        assert_eq!(loaded.tokens.len(), 2);
        assert_eq!(
            (loaded.tokens[1].kind, loaded.tokens[1].revoked),
            (TokenKind::Admin, true)
        );
        let node = NodeRecord {
            node: NodeId(2),
            identity: "0011".to_owned(),
            name: "pc".to_owned(),
            done: 12,
        };
        assert_eq!(loaded.nodes, [node]);
        assert_eq!(loaded.job_cpu, [(JobId(1), 0.25)]);
        assert_eq!(loaded.images, [image("vina", "image")]);
    });
}

#[test]
fn pages_of_attempts_are_those_asked_for() {
    each(|store| {
        store.commit(&rows(), &server_rows()).unwrap();
        let numbers = |rows: Vec<AttemptRow>| -> Vec<(u32, u32)> {
            rows.iter()
                .map(|row| (row.attempt.task.index, row.attempt.number))
                .collect()
        };
        let task = TaskId::new(JobId(1), 4);
        let tries = store.attempts(task).unwrap();
        assert_eq!(tries[2], attempt(1, 4, 3, Some(TaskState::Failed)));
        assert_eq!(numbers(tries), [(4, 1), (4, 2), (4, 3)]);
        let last = store.last_attempts(JobId(1), 0, 100).unwrap();
        assert_eq!(numbers(last), [(2, 1), (4, 3)]);
        // One that was granted before the success of another came home.
        let other = Row::Attempt(attempt(1, 2, 2, None));
        store.commit(&[other], &[]).unwrap();
        let last = store.last_attempts(JobId(1), 0, 100).unwrap();
        assert_eq!(numbers(last), [(2, 1), (2, 2), (4, 3)]);
        assert_eq!(numbers(store.last_attempts(JobId(1), 3, 4).unwrap()), []);
        assert_eq!(numbers(store.results(JobId(1), 0, 10).unwrap()), [(2, 1)]);
        assert_eq!(numbers(store.results(JobId(1), 3, 10).unwrap()), []);
        assert_eq!(
            store.job_body(JobId(2)).unwrap().unwrap(),
            b"the submission"
        );
        assert_eq!(store.job_body(JobId(9)).unwrap(), None);
        assert_eq!(store.merged(JobId(2)).unwrap()[0].blob.size, u64::MAX);
        assert!(store.merged(JobId(1)).unwrap().is_empty());
    });
}

#[test]
fn contents_are_found_by_digest_whenever_they_came() {
    each(|store| {
        store.commit(&rows(), &server_rows()).unwrap();
        let found = |text: &str| store.inline(&digest(text)).unwrap();
        assert_eq!(found("content 1.4.2").unwrap(), b"content 1.4.2");
        assert_eq!(found("content 1.5.1"), None);
        store
            .commit(&[Row::Attempt(attempt(1, 5, 1, None))], &[])
            .unwrap();
        assert_eq!(found("content 1.5.1").unwrap(), b"content 1.5.1");
        assert!(store.is_referenced(&digest("needed")).unwrap());
        assert!(store.is_referenced(&digest("image")).unwrap());
        assert!(!store.is_referenced(&digest("gone")).unwrap());
        assert!(!store.is_referenced(&digest("loose")).unwrap());
        store.probe().unwrap();
    });
}

#[test]
fn what_was_saved_is_kept_with_its_blobs_until_it_is_over() {
    each(|store| {
        store.commit(&rows(), &server_rows()).unwrap();
        let task = |index| TaskId::new(JobId(1), index);
        let found = store.checkpoint(task(3)).unwrap().unwrap();
        let mut wanted = checkpoint(1, 3, 2);
        wanted.saved.blobs.clear();
        assert_eq!(found, wanted);
        assert_eq!(store.checkpoint(task(5)).unwrap(), None);
        let needed = |content: &str| store.is_referenced(&digest(content)).unwrap();
        assert!(needed("saved 1.3.2") && needed("saved by all"));
        assert!(!needed("saved 1.3.1") && !needed("saved 1.5.1"));
        let over = [
            Row::CheckpointOver(task(3)),
            Row::CheckpointOver(TaskId::new(JobId(2), 0)),
        ];
        store.commit(&over, &[]).unwrap();
        assert!(!needed("saved 1.3.2") && !needed("saved by all"));
        assert_eq!(store.load().unwrap().snapshot.checkpoints, []);
    });
}

#[test]
fn an_attempt_that_comes_back_takes_the_place_of_its_loss() {
    each(|store| {
        let lost = AttemptRow {
            state: AttemptState::Lost,
            ..attempt(1, 0, 1, None)
        };
        let back = AttemptRow {
            state: AttemptState::Leased,
            counts: false,
            ..lost.clone()
        };
        store
            .commit(
                &[Row::NewJob(JobId(1), at(1), new_job(3)), Row::Attempt(lost)],
                &[],
            )
            .unwrap();
        store.commit(&[Row::Attempt(back.clone())], &[]).unwrap();
        assert_eq!(store.attempts(back.attempt.task).unwrap(), [back]);
        let ended = store.load().unwrap().snapshot.ended;
        assert_eq!((ended.len(), ended[0].state), (1, AttemptState::Leased));
    });
}

#[test]
fn a_file_is_opened_again_with_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.commit(&rows(), &server_rows()).unwrap();
    let before = store.load().unwrap();
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.load().unwrap(), before);
    // Chunks go on where they stopped: a later one must not take an earlier one's place.
    store
        .commit(&[Row::Attempt(attempt(1, 6, 1, None))], &[])
        .unwrap();
    assert_eq!(
        store.load().unwrap().snapshot.ended.len(),
        before.snapshot.ended.len() + 1
    );
    assert_eq!(store.load().unwrap().snapshot.last_lease, 71);
}

#[test]
fn a_batch_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    store.commit(&rows(), &server_rows()).unwrap();
    let before = store.load().unwrap();
    let spoiler = rusqlite::Connection::open(&path).unwrap();
    spoiler.execute_batch("DROP TABLE node_wish").unwrap();
    // The row that fails stands last: all before it must be undone.
    let node = NodeRow {
        node: NodeId(5),
        paused: false,
        draining: true,
    };
    let batch = [
        Row::NewJob(JobId(4), at(1), new_job(1)),
        Row::Attempt(attempt(1, 9, 1, None)),
        Row::Node(node),
    ];
    let failed = store.commit(&batch, &[]);
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    let table = "CREATE TABLE node_wish (id INTEGER PRIMARY KEY, paused INTEGER NOT NULL,
                 draining INTEGER NOT NULL)";
    spoiler.execute_batch(table).unwrap();
    let after = store.load().unwrap();
    assert_eq!(after.snapshot.jobs, before.snapshot.jobs);
    assert_eq!(after.snapshot.ended, before.snapshot.ended);
    store.commit(&batch, &[]).unwrap();
    assert_eq!(store.load().unwrap().snapshot.jobs.len(), 4);
}

#[test]
fn a_newer_file_is_refused_and_rubbish_is_no_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    drop(SqliteStore::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let newer = SqliteStore::open(&path);
    assert!(
        matches!(newer, Err(StoreError::Newer { found: 99, .. })),
        "{newer:?}"
    );
    std::fs::write(dir.path().join("rubbish"), [7; 8192]).unwrap();
    let rubbish = SqliteStore::open(&dir.path().join("rubbish"));
    assert!(
        matches!(rubbish, Err(StoreError::Damaged(_))),
        "{rubbish:?}"
    );
}

/// Rows as a store of this schema version has them: what came later is not in it.
fn rows_of(version: u32) -> Vec<Row> {
    let later = |row: &Row| matches!(row, Row::Checkpoint(_) | Row::CheckpointOver(_));
    let mut rows: Vec<Row> = rows()
        .into_iter()
        .filter(|row| version >= 2 || !later(row))
        .collect();
    for row in &mut rows {
        if let Row::Job(row) = row {
            if version < 4 {
                row.cost = JobCost::default();
            }
            if version < 5 {
                (row.cost.guest_seconds, row.cost.guest_system_seconds) = (0.0, 0.0);
            }
        }
        if let Row::Checkpoint(row) = row
            && version < 4
        {
            row.progress = 0;
        }
    }
    rows
}

/// The file of each released schema still opens, and means what it meant.
#[test]
fn files_of_every_released_version_open() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let dir = tempfile::tempdir().unwrap();
    for version in 1..=5 {
        let text = std::fs::read_to_string(golden.join(format!("v{version}.sql"))).unwrap();
        let path = dir.path().join(format!("v{version}"));
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch(&text).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        drop(db);
        let store = SqliteStore::open(&path).unwrap();
        let loaded = store.load().unwrap();
        let mut book = gleaner_core::Book::new();
        rows_of(version).iter().for_each(|row| book.apply(row));
        assert_eq!(loaded.snapshot, book.snapshot(), "version {version}");
        let content = store.inline(&digest("content 1.4.1")).unwrap().unwrap();
        assert_eq!(content, b"content 1.4.1");
        assert_eq!(store.merged(JobId(2)).unwrap()[0].name, "all.txt");
        let images = if version >= 3 {
            vec![image("vina", "image")]
        } else {
            Vec::new()
        };
        assert_eq!(loaded.images, images, "version {version}");
        let saved = store.is_referenced(&digest("saved 1.3.2")).unwrap();
        assert_eq!(saved, version >= 2, "version {version}");
        // It goes on from there as any other.
        store.commit(&[Row::JobGone(JobId(1))], &[]).unwrap();
        while store.purge().unwrap() {}
        assert_eq!(store.inline(&digest("content 1.4.1")).unwrap(), None);
    }
}

/// A new schema needs a golden file of its own: `rows` as this build stores them.
#[test]
fn the_newest_version_has_a_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    drop(SqliteStore::open(&path).unwrap());
    let db = rusqlite::Connection::open(&path).unwrap();
    let version: u32 = db
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    assert!(golden.join(format!("v{version}.sql")).exists());
}

#[test]
fn a_deleted_job_leaves_nothing_and_the_others_lose_nothing() {
    each(|store| {
        store.commit(&rows(), &server_rows()).unwrap();
        let content = |text: &str| store.inline(&digest(text)).unwrap();
        let needed = |text: &str| store.is_referenced(&digest(text)).unwrap();
        assert!(content("content 1.4.2").is_some());
        store.commit(&[Row::JobGone(JobId(1))], &[]).unwrap();
        let mut book = gleaner_core::Book::new();
        rows().iter().for_each(|row| book.apply(row));
        book.apply(&Row::JobGone(JobId(1)));
        assert_eq!(store.load().unwrap().snapshot, book.snapshot());
        assert_eq!(store.load().unwrap().job_cpu, []);
        assert_eq!(store.job_body(JobId(1)).unwrap(), None);
        while store.purge().unwrap() {}
        assert_eq!(content("content 1.4.2"), None);
        assert_eq!(store.attempts(TaskId::new(JobId(1), 4)).unwrap(), []);
        assert!(!needed("saved 1.3.2"));
        assert!(needed("needed"), "job 2 needs it too");
        assert!(content("content 2.0.1").is_some());
        // Rows that come now take the places of those that went, and are found.
        store
            .commit(&[Row::Attempt(attempt(2, 1, 1, None))], &[])
            .unwrap();
        assert!(content("content 2.1.1").is_some());
        store.commit(&[Row::JobGone(JobId(2))], &[]).unwrap();
        while store.purge().unwrap() {}
        assert!(!needed("needed"));
        assert_eq!(store.merged(JobId(2)).unwrap(), []);
        assert_eq!(store.load().unwrap().snapshot.last_job, 3);
    });
}

#[test]
fn what_a_large_job_left_goes_in_turns_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.sqlite");
    let store = SqliteStore::open(&path).unwrap();
    let mut rows = vec![Row::NewJob(JobId(1), at(1), new_job(2500))];
    let done = Some(TaskState::Done);
    rows.extend((0..2500).map(|index| Row::Attempt(attempt(1, index, 1, done))));
    store.commit(&rows, &[]).unwrap();
    store.commit(&[Row::JobGone(JobId(1))], &[]).unwrap();
    assert!(store.purge().unwrap());
    drop(store);
    let store = SqliteStore::open(&path).unwrap();
    let turns = std::iter::repeat_with(|| store.purge().unwrap());
    assert!(turns.take_while(|more| *more).count() >= 2);
    assert_eq!(store.attempts(TaskId::new(JobId(1), 2499)).unwrap(), []);
}

/// A few jobs, tasks and numbers, so that rows meet each other.
fn any_row() -> impl Strategy<Value = Row> {
    let over = prop_oneof![
        Just(None),
        Just(Some(TaskState::Done)),
        Just(Some(TaskState::Failed))
    ];
    let set = prop::collection::btree_set(0_u32..200, 0..20);
    prop_oneof![
        (1_u64..4, 0_u32..6, 1_u32..4, over)
            .prop_map(|(job, index, number, over)| Row::Attempt(attempt(job, index, number, over))),
        (1_u64..4, prop::collection::vec((0_u32..6, 1_u32..4), 0..4))
            .prop_map(|(job, tasks)| Row::Forgiven(JobId(job), tasks)),
        (1_u64..4, any::<bool>(), set.clone(), 0_u32..9).prop_map(|(job, over, failed, base)| {
            Row::Job(JobRow {
                state: if over {
                    JobState::Failed
                } else {
                    JobState::Running
                },
                failed: failed.into_iter().collect(),
                base,
                ..fresh_job_row(JobId(job))
            })
        }),
        (1_u64..9, set).prop_map(|(lease, tasks)| {
            Row::Lease(LeaseRow {
                lease: LeaseId(lease),
                node: NodeId(1),
                job: JobId(1),
                tasks: tasks.into_iter().collect(),
                numbers: BTreeMap::new(),
                width: 1,
            })
        }),
        (1_u64..9).prop_map(|lease| Row::LeaseOver(LeaseId(lease))),
        (2_u64..4).prop_map(|job| Row::JobGone(JobId(job))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written in whatever batches, a restart sees what the reference book sees.
    #[test]
    fn any_history_reads_back_like_the_reference(
        batches in prop::collection::vec(prop::collection::vec(any_row(), 0..12), 0..6)
    ) {
        let jobs: Vec<Row> =
            (1..4).map(|job| Row::NewJob(JobId(job), at(job), new_job(200))).collect();
        let mut book = gleaner_core::Book::new();
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.sqlite")).unwrap();
        for batch in std::iter::once(&jobs).chain(&batches) {
            batch.iter().for_each(|row| book.apply(row));
            store.commit(batch, &[]).unwrap();
            prop_assert_eq!(store.load().unwrap().snapshot, book.snapshot());
        }
    }
}
