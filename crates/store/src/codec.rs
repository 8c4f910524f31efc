//! Compact encodings: numbers of variable length (LEB128), sets of indices, chunks of ended
//! attempts. What is written here is read by every later version: never change a code, add one.

use crate::StoreError;
use gleaner_core::{AttemptRow, EndedRow, MergeKind};
use gleaner_model::{
    AttemptId, AttemptState, EngineChoice, IntervalSet, JobId, JobState, NodeId, TaskId, TaskState,
};
use std::collections::BTreeMap;

/// First byte of a chunk of ended attempts.
const CHUNK_ENDED: u8 = 1;
/// First byte of a chunk of forgiven attempts.
const CHUNK_FORGIVEN: u8 = 2;

pub(crate) fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

/// Reads numbers off a slice; every failure is the same: the row is damaged.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        let (mut number, mut shift) = (0_u64, 0_u32);
        loop {
            let (byte, rest) = self.0.split_first().ok_or_else(|| damaged("a number"))?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            number |= part.checked_shl(shift).ok_or_else(|| damaged("a number"))?;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    pub(crate) fn small(&mut self) -> Result<u32, StoreError> {
        u32::try_from(self.number()?).map_err(|_| damaged("an index"))
    }

    pub(crate) fn byte(&mut self) -> Result<u8, StoreError> {
        let (byte, rest) = self.0.split_first().ok_or_else(|| damaged("a byte"))?;
        self.0 = rest;
        Ok(*byte)
    }
}

pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("{what} does not decode"))
}

/// Ranges as distances: from the last end to the start, and the length.
pub(crate) fn put_set(set: &IntervalSet) -> Vec<u8> {
    let (mut bytes, mut last) = (Vec::new(), 0);
    for (start, end) in set.ranges() {
        put_number(&mut bytes, u64::from(start - last));
        put_number(&mut bytes, u64::from(end - start));
        last = end;
    }
    bytes
}

pub(crate) fn take_set(bytes: &[u8]) -> Result<IntervalSet, StoreError> {
    let (mut reader, mut set, mut last) = (Reader(bytes), IntervalSet::new(), 0_u32);
    while !reader.0.is_empty() {
        let start = last.checked_add(reader.small()?);
        let end = start.and_then(|start| start.checked_add(reader.small().ok()?));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(damaged("a set of tasks"));
        };
        set.insert_range(start, end);
        last = end;
    }
    Ok(set)
}

pub(crate) fn put_pairs<'a>(pairs: impl Iterator<Item = (&'a u32, &'a u32)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in pairs {
        put_number(&mut bytes, u64::from(*key));
        put_number(&mut bytes, u64::from(*value));
    }
    bytes
}

pub(crate) fn take_pairs(bytes: &[u8]) -> Result<BTreeMap<u32, u32>, StoreError> {
    let (mut reader, mut pairs) = (Reader(bytes), BTreeMap::new());
    while !reader.0.is_empty() {
        pairs.insert(reader.small()?, reader.small()?);
    }
    Ok(pairs)
}

pub(crate) fn start_ended() -> Vec<u8> {
    vec![CHUNK_ENDED]
}

/// Adds one ended attempt to a chunk: some six bytes, so that a restart reads little.
pub(crate) fn put_ended(chunk: &mut Vec<u8>, row: &AttemptRow) {
    put_number(chunk, u64::from(row.attempt.task.index));
    put_number(chunk, u64::from(row.attempt.number));
    put_number(chunk, u64::from(row.node.0));
    chunk.push(attempt_code(row.state));
    chunk.push(flags(row.counts, row.no_program, row.task_over));
}

pub(crate) fn put_forgiven(tasks: &[(u32, u32)]) -> Vec<u8> {
    // Reading keeps one number a task: the last.
    let mut highest = BTreeMap::new();
    for (task, number) in tasks {
        let known = highest.entry(*task).or_insert(*number);
        *known = (*known).max(*number);
    }
    let mut chunk = vec![CHUNK_FORGIVEN];
    chunk.extend(put_pairs(highest.iter()));
    chunk
}

/// Applies one chunk of a job to its ended attempts; chunks come in the order they were written.
pub(crate) fn take_chunk(
    bytes: &[u8],
    job: JobId,
    ended: &mut BTreeMap<AttemptId, EndedRow>,
) -> Result<(), StoreError> {
    let mut reader = Reader(bytes);
    match reader.byte()? {
        CHUNK_ENDED => {
            while !reader.0.is_empty() {
                let attempt = TaskId::new(job, reader.small()?).attempt(reader.small()?);
                let node = NodeId(reader.small()?);
                let state = attempt_state(reader.byte()?)?;
                let (counts, no_program, task_over) = take_flags(reader.byte()?)?;
                let row = EndedRow {
                    attempt,
                    node,
                    state,
                    counts,
                    no_program,
                    task_over,
                };
                ended.insert(attempt, row);
            }
        }
        CHUNK_FORGIVEN => {
            for (index, number) in take_pairs(reader.0)? {
                let task = TaskId::new(job, index);
                for (_, row) in ended.range_mut(task.attempt(0)..=task.attempt(number)) {
                    row.counts = false;
                }
            }
        }
        _ => return Err(damaged("a chunk of attempts")),
    }
    Ok(())
}

/// Bit 0: counts; bit 1: no program; bits 2 to 4: how it ended the task, 0 for not at all.
pub(crate) fn flags(counts: bool, no_program: bool, over: Option<TaskState>) -> u8 {
    u8::from(counts) | u8::from(no_program) << 1 | over.map_or(0, task_code) << 2
}

pub(crate) fn take_flags(byte: u8) -> Result<(bool, bool, Option<TaskState>), StoreError> {
    let over = match byte >> 2 {
        0 => None,
        code => Some(task_state(code)?),
    };
    Ok((byte & 1 != 0, byte & 2 != 0, over))
}

macro_rules! codes {
    ($put:ident, $take:ident, $type:ident, $what:literal, { $($variant:ident = $code:literal),+ }) => {
        pub(crate) const fn $put(value: $type) -> u8 {
            match value { $($type::$variant => $code),+ }
        }
        pub(crate) fn $take(code: u8) -> Result<$type, StoreError> {
            match code {
                $($code => Ok($type::$variant),)+
                _ => Err(damaged($what)),
            }
        }
    };
}

codes!(attempt_code, attempt_state, AttemptState, "an attempt's state", {
    Leased = 1, Fetching = 2, Running = 3, Paused = 4, Finished = 5, Failed = 6, Lost = 7,
    Evicted = 8, Cancelled = 9, Checkpointed = 10
});
codes!(task_code, task_state, TaskState, "a task's state", {
    Waiting = 1, Ready = 2, Running = 3, Done = 4, Failed = 5, Cancelled = 6
});
codes!(job_code, job_state, JobState, "a job's state", {
    Waiting = 1, Running = 2, Paused = 3, Done = 4, Failed = 5, Cancelled = 6
});
codes!(engine_code, engine, EngineChoice, "an engine", { Process = 1, Vm = 2, Wasm = 3, Auto = 4 });
codes!(merge_code, merge_kind, MergeKind, "a kind of merge", { None = 1, Concat = 2, Command = 3 });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sets_come_back() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut reader = Reader(&bytes);
            assert_eq!(reader.number().unwrap(), number);
            assert!(reader.0.is_empty());
        }
        let set: IntervalSet = [0, 1, 2, 7, 9, 10, 999_999].into_iter().collect();
        assert_eq!(take_set(&put_set(&set)).unwrap(), set);
        assert_eq!(take_set(&[]).unwrap(), IntervalSet::new());
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        for bytes in [&[0x80][..], &[0xff; 12], &[1, 2, 3], &[9]] {
            let chunk = take_chunk(bytes, JobId(1), &mut BTreeMap::new());
            assert!(matches!(chunk, Err(StoreError::Damaged(_))), "{bytes:?}");
        }
        take_set(&[0xff, 0xff, 0xff, 0xff, 0x0f, 5]).unwrap_err();
        take_set(&[3]).unwrap_err();
    }
}
