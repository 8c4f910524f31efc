//! Turns the table into a program for the kernel's classic BPF machine.
//!
//! Calls are sorted by number, neighbours with one action become one range, and a search tree
//! finds the range. Each cage installs the program anew, so its price is part of every task's
//! start: the kernel compiles each instruction, and runs the program once for each number there
//! is to learn which calls are always allowed. Hence answers are shared by all ranges that give
//! them, and the tree is balanced by how many numbers a range has, not by ranges. Source of the
//! machine and of what it is given: seccomp(2), and "The BSD Packet Filter" (McCanne and Jacobson,
//! 1993); of balance by weight: "The Art of Computer Programming", volume 3, 6.2.2.

use super::table::{
    Action, CLONE_NAMESPACES, Check, FAMILIES, FILTER_LISTENER, PERSONALITIES, PROCESS_OPTIONS,
    PROTOCOLS, SOCKET_TYPE_BITS, SOCKET_TYPES, TERMINAL_REQUESTS, groups,
};
use crate::cage::sys::Instruction;

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_AT_LEAST: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const AND: u16 = 0x54;

const KILL_PROCESS: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERROR: u32 = 0x0005_0000;
const NOTIFY: u32 = 0x7fc0_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER_AT: u32 = 0;
const ARCH_AT: u32 = 4;
const ARGS_AT: u32 = 16;

/// The x32 calls of x86-64 have this bit; their table has had holes of its own.
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
#[cfg(target_arch = "riscv64")]
const ARCH: u32 = 0xC000_00F3;

/// How refused calls are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The shim counts them and answers.
    Counted,
    /// The kernel answers at once: where no listener can be had.
    Silent,
}

/// What depends on the cage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Whether the program may begin a session.
    pub(crate) sessions: bool,
    /// Whether it may trace processes: a guest's kernel that has no hardware to help it runs
    /// the guest's processes so. What it reaches so lies in the same cage.
    pub(crate) tracing: bool,
}

/// The whole filter.
pub(crate) fn program(refusal: Refusal, allowed: Allowed) -> Vec<Instruction> {
    let mut all = vec![
        load(ARCH_AT),
        jump(JUMP_EQUAL, ARCH, 1, 0),
        give(KILL_PROCESS),
        load(NUMBER_AT),
    ];
    #[cfg(target_arch = "x86_64")]
    all.extend([jump(JUMP_ANY_BIT, X32_BIT, 0, 1), give(absent())]);
    let mut tail = Tail::default();
    tail.search(&ranges(allowed), refusal);
    tail.backwards.reverse();
    all.append(&mut tail.backwards);
    all
}

/// First number of each range and what becomes of the calls in it, from 0 on.
fn ranges(allowed: Allowed) -> Vec<(u32, Action)> {
    let action = |number, usual| match number {
        // Where the kernel keeps sessions apart, a new one starts at normal priority.
        libc::SYS_setsid if !allowed.sessions => Action::Refuse,
        libc::SYS_ptrace if allowed.tracing => Action::Allow,
        _ => usual,
    };
    let mut calls: Vec<(u32, Action)> = groups()
        .flat_map(|group| {
            let action = &action;
            let calls = group.calls.iter();
            calls.map(move |call| (call.1, action(call.1, group.action)))
        })
        .filter_map(|(number, action)| Some((u32::try_from(number).ok()?, action)))
        .collect();
    calls.sort_unstable();
    let mut ranges = vec![(0, Action::Absent)];
    let mut next = 0;
    let mut add = |first: u32, action: Action| match ranges.last_mut() {
        Some((_, before)) if *before == action => {}
        Some((start, before)) if *start == first => *before = action,
        _ => ranges.push((first, action)),
    };
    for (number, action) in calls {
        if number > next {
            add(next, Action::Absent);
        }
        add(number, action);
        next = number + 1;
    }
    add(next, Action::Absent);
    ranges
}

/// The program from its end on: the machine jumps forward only, so whatever is jumped to is
/// written first.
#[derive(Debug, Default)]
struct Tail {
    backwards: Vec<Instruction>,
    /// Answers that were written already: place of their first instruction.
    answers: Vec<(Action, usize)>,
}

impl Tail {
    /// Writes the search through `ranges`; returns the place where it begins.
    fn search(&mut self, ranges: &[(u32, Action)], refusal: Refusal) -> usize {
        let [_, _, ..] = ranges else {
            let action = ranges.first().map_or(Action::Absent, |range| range.1);
            return self.answer(action, refusal);
        };
        let (low, high) = ranges.split_at(middle(ranges));
        let first = high.first().map_or(0, |range| range.0);
        let upper = self.search(high, refusal);
        let lower = self.search(low, refusal);
        let upper = self.within_reach(upper);
        let lower = self.within_reach(lower);
        let (upper, lower) = (self.distance(upper), self.distance(lower));
        self.backwards
            .push(jump(JUMP_AT_LEAST, first, upper, lower));
        self.backwards.len() - 1
    }

    fn answer(&mut self, action: Action, refusal: Refusal) -> usize {
        let known = self.answers.iter().find(|(of, _)| *of == action);
        if let Some((_, place)) = known {
            return *place;
        }
        let mut answer = Vec::new();
        leaf(action, refusal, &mut answer);
        self.backwards.extend(answer.into_iter().rev());
        let place = self.backwards.len() - 1;
        self.answers.push((action, place));
        place
    }

    /// A place that the next instruction can jump to and then go on to `place`. A conditional jump
    /// reaches 255 instructions, the unconditional one any.
    fn within_reach(&mut self, place: usize) -> usize {
        let between = self.backwards.len() - 1 - place;
        // One more instruction may come before the jump itself.
        if between < usize::from(u8::MAX) {
            return place;
        }
        self.backwards.push(Instruction {
            code: JUMP,
            jump_true: 0,
            jump_false: 0,
            constant: u32::try_from(between).unwrap_or(u32::MAX),
        });
        self.backwards.len() - 1
    }

    fn distance(&self, place: usize) -> u8 {
        u8::try_from(self.backwards.len() - 1 - place).unwrap_or(u8::MAX)
    }
}

/// Where to part `ranges` so that both sides have as many numbers as can be.
fn middle(ranges: &[(u32, Action)]) -> usize {
    let (first, last) = (ranges.first(), ranges.last());
    // The last range has no end; what is in it is no call that anybody makes.
    let (start, end) = (
        first.map_or(0, |range| range.0),
        last.map_or(0, |range| range.0 + 1),
    );
    let off = |at: &usize| {
        let split = ranges.get(*at).map_or(end, |range| range.0);
        (split - start).abs_diff(end - split)
    };
    (1..ranges.len()).min_by_key(off).unwrap_or(1)
}

fn leaf(action: Action, refusal: Refusal, out: &mut Vec<Instruction>) {
    let refused = give(match refusal {
        Refusal::Counted => NOTIFY,
        Refusal::Silent => ERROR | errno(libc::EPERM),
    });
    match action {
        Action::Allow => out.push(give(ALLOW)),
        Action::Refuse => out.push(refused),
        Action::Absent => out.push(give(absent())),
        Action::Check(Check::CloneFlags) => {
            out.push(load(ARGS_AT));
            out.push(jump(JUMP_ANY_BIT, CLONE_NAMESPACES, 0, 1));
            out.extend([refused, give(ALLOW)]);
        }
        Action::Check(Check::SocketFamily) => socket(refused, out),
        Action::Check(Check::PairFamily) => one_of(0, FAMILIES.split_at(1).0, refused, out),
        Action::Check(Check::Personality) => one_of(0, &PERSONALITIES, refused, out),
        Action::Check(Check::TerminalRequests) => none_of(1, &TERMINAL_REQUESTS, refused, out),
        Action::Check(Check::ProcessOptions) => none_of(0, &PROCESS_OPTIONS, refused, out),
        Action::Check(Check::FilterFlags) => {
            out.push(load(ARGS_AT + 8));
            out.push(jump(JUMP_ANY_BIT, FILTER_LISTENER, 0, 1));
            out.extend([refused, give(ALLOW)]);
        }
    }
}

/// Local sockets are what they are; of the internet's, type and protocol matter too.
fn socket(refused: Instruction, out: &mut Vec<Instruction>) {
    let [local, internet @ ..] = FAMILIES;
    out.push(load(ARGS_AT));
    out.extend([jump(JUMP_EQUAL, local, 0, 1), give(ALLOW)]);
    go_on_with(&internet, refused, out);
    out.push(load(ARGS_AT + 8));
    out.push(Instruction {
        code: AND,
        ..give(SOCKET_TYPE_BITS)
    });
    go_on_with(&SOCKET_TYPES, refused, out);
    one_of(2, &PROTOCOLS, refused, out);
}

/// Refuses what is none of `values`; for the rest the next instruction is behind.
fn go_on_with(values: &[u32], refused: Instruction, out: &mut Vec<Instruction>) {
    for (value, behind) in values.iter().zip((1..=u8::MAX).take(values.len()).rev()) {
        out.push(jump(JUMP_EQUAL, *value, behind, 0));
    }
    out.push(refused);
}

/// Allows where an argument's low word is one of `values`. The kernel looks at the low word
/// of these arguments only, all of them being 32 bits wide.
fn one_of(argument: u32, values: &[u32], refused: Instruction, out: &mut Vec<Instruction>) {
    out.push(load(ARGS_AT + 8 * argument));
    for value in values {
        out.extend([jump(JUMP_EQUAL, *value, 0, 1), give(ALLOW)]);
    }
    out.push(refused);
}

/// The other way round, for arguments of the same kind.
fn none_of(argument: u32, values: &[u32], refused: Instruction, out: &mut Vec<Instruction>) {
    out.push(load(ARGS_AT + 8 * argument));
    for value in values {
        out.extend([jump(JUMP_EQUAL, *value, 0, 1), refused]);
    }
    out.push(give(ALLOW));
}

const fn load(at: u32) -> Instruction {
    Instruction {
        code: LOAD_WORD,
        jump_true: 0,
        jump_false: 0,
        constant: at,
    }
}

const fn jump(code: u16, constant: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction {
        code,
        jump_true,
        jump_false,
        constant,
    }
}

const fn give(constant: u32) -> Instruction {
    Instruction {
        code: RETURN,
        jump_true: 0,
        jump_false: 0,
        constant,
    }
}

const fn errno(number: i32) -> u32 {
    number.cast_unsigned()
}

const fn absent() -> u32 {
    ERROR | errno(libc::ENOSYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Allowed = Allowed {
        sessions: true,
        tracing: false,
    };

    /// What the kernel's machine would do with one call.
    fn run(program: &[Instruction], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut accumulator = 0;
        let mut at = 0;
        loop {
            let now = program[at];
            at += 1;
            let branch = |met: bool| usize::from(if met { now.jump_true } else { now.jump_false });
            match now.code {
                LOAD_WORD => {
                    accumulator = match now.constant {
                        NUMBER_AT => number,
                        ARCH_AT => arch,
                        other => {
                            let word = args[usize::try_from((other - ARGS_AT) / 8).unwrap()];
                            u32::try_from(word & 0xFFFF_FFFF).unwrap()
                        }
                    }
                }
                AND => accumulator &= now.constant,
                JUMP => at += usize::try_from(now.constant).unwrap(),
                JUMP_EQUAL => at += branch(accumulator == now.constant),
                JUMP_AT_LEAST => at += branch(accumulator >= now.constant),
                JUMP_ANY_BIT => at += branch(accumulator & now.constant != 0),
                RETURN => return now.constant,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    const EPERM: u32 = ERROR | 1;
    const ENOSYS: u32 = ERROR | 38;

    #[test]
    fn every_call_of_the_table_gets_its_action() {
        let program = program(Refusal::Silent, USUAL);
        assert!(program.len() < 4096, "the kernel takes 4096 instructions");
        for group in groups() {
            assert!(group.reason.len() > 10, "{:?}", group.calls);
            for (name, number) in group.calls {
                let number = u32::try_from(*number).unwrap();
                let got = run(&program, ARCH, number, [0; 6]);
                match group.action {
                    Action::Allow => assert_eq!(got, ALLOW, "{name}"),
                    Action::Refuse => assert_eq!(got, EPERM, "{name}"),
                    Action::Absent => assert_eq!(got, ENOSYS, "{name}"),
                    Action::Check(_) => {}
                }
            }
        }
    }

    #[test]
    fn any_tree_finds_the_range_of_any_number() {
        // Alternating ranges, too many for a conditional jump to reach over.
        let ranges: Vec<_> = (0..600)
            .map(|at| match at % 3 {
                0 => (at * 2, Action::Allow),
                1 => (at * 2, Action::Absent),
                _ => (at * 2, Action::Refuse),
            })
            .collect();
        let mut tail = Tail::default();
        tail.search(&ranges, Refusal::Counted);
        tail.backwards.reverse();
        let mut program = vec![load(NUMBER_AT)];
        program.append(&mut tail.backwards);
        for number in 0..1300_u32 {
            let got = run(&program, ARCH, number, [0; 6]);
            let want = match (number / 2).min(599) % 3 {
                0 => ALLOW,
                1 => ENOSYS,
                _ => NOTIFY,
            };
            assert_eq!(got, want, "{number}");
        }
    }

    #[test]
    fn a_call_is_named_once() {
        let mut names: Vec<_> = groups()
            .flat_map(|group| group.calls)
            .map(|call| call.1)
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn arguments_decide() {
        let program = program(Refusal::Counted, USUAL);
        let call =
            |number: i64, args: [u64; 6]| run(&program, ARCH, u32::try_from(number).unwrap(), args);
        for (family, what) in [
            (1, ALLOW),
            (2, ALLOW),
            (10, ALLOW),
            (16, NOTIFY),
            (17, NOTIFY),
            (40, NOTIFY),
        ] {
            assert_eq!(
                call(libc::SYS_socket, [family, 1, 0, 0, 0, 0]),
                what,
                "family {family}"
            );
        }
        let flags = u64::try_from(libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK).unwrap();
        for (family, kind, protocol, what) in [
            (1, 5, 0, ALLOW),
            (2, 1 | flags, 0, ALLOW),
            (2, 1, 6, ALLOW),
            (10, 2 | flags, 17, ALLOW),
            (2, 2, 1, ALLOW),
            // SCTP, twice, and DCCP: modules that a task would have loaded. MPTCP, UDP-Lite.
            (2, 1, 132, NOTIFY),
            (10, 5, 0, NOTIFY),
            (2, 6, 33, NOTIFY),
            (2, 1, 262, NOTIFY),
            (10, 2, 136, NOTIFY),
        ] {
            let found = call(libc::SYS_socket, [family, kind, protocol, 0, 0, 0]);
            assert_eq!(found, what, "{family} {kind} {protocol}");
        }
        assert_eq!(call(libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_socketpair, [2, 1, 0, 0, 0, 0]), NOTIFY);
        let thread = 0x3D_0F00;
        assert_eq!(call(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        for flag in [
            0x0002_0000_u64,
            0x0200_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
        ] {
            assert_eq!(
                call(libc::SYS_clone, [17 | flag, 0, 0, 0, 0, 0]),
                NOTIFY,
                "{flag:#x}"
            );
        }
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5401, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), NOTIFY);
        // The kernel ignores the upper half of the request, so it must not hide one.
        assert_eq!(
            call(libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0, 0]),
            NOTIFY
        );
        assert_eq!(call(libc::SYS_seccomp, [1, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(call(libc::SYS_seccomp, [1, 8, 0, 0, 0, 0]), NOTIFY);
        assert_eq!(
            call(libc::SYS_personality, [0xFFFF_FFFF, 0, 0, 0, 0, 0]),
            ALLOW
        );
        assert_eq!(
            call(libc::SYS_personality, [0x0008_0000, 0, 0, 0, 0, 0]),
            NOTIFY
        );
    }

    #[test]
    fn foreign_architectures_kill_and_unknown_calls_are_absent() {
        let program = program(Refusal::Counted, USUAL);
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), KILL_PROCESS);
        for number in [9999, 0x3FFF_FFFF, u32::MAX] {
            assert_eq!(run(&program, ARCH, number, [0; 6]), ENOSYS, "{number}");
        }
        let clone3 = u32::try_from(libc::SYS_clone3).unwrap();
        assert_eq!(run(&program, ARCH, clone3, [0; 6]), ENOSYS);
        #[cfg(target_arch = "x86_64")]
        for number in [0, 1, 59, 321] {
            assert_eq!(
                run(&program, ARCH, number | X32_BIT, [0; 6]),
                ENOSYS,
                "x32 {number}"
            );
        }
    }

    #[test]
    fn no_session_begins_where_sessions_are_what_keeps_it_idle() {
        let setsid = u32::try_from(libc::SYS_setsid).unwrap();
        for (sessions, got) in [(true, ALLOW), (false, EPERM)] {
            let program = program(Refusal::Silent, Allowed { sessions, ..USUAL });
            assert_eq!(run(&program, ARCH, setsid, [0; 6]), got);
        }
    }

    #[test]
    fn only_a_guests_kernel_traces() {
        let ptrace = u32::try_from(libc::SYS_ptrace).unwrap();
        for (tracing, got) in [(true, ALLOW), (false, EPERM)] {
            let program = program(Refusal::Silent, Allowed { tracing, ..USUAL });
            assert_eq!(run(&program, ARCH, ptrace, [0; 6]), got);
        }
    }

    #[test]
    fn hot_calls_never_wait_for_the_shim() {
        let program = program(Refusal::Counted, USUAL);
        for number in [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_openat,
            libc::SYS_futex,
            libc::SYS_mmap,
        ] {
            let number = u32::try_from(number).unwrap();
            assert_eq!(run(&program, ARCH, number, [0; 6]), ALLOW, "{number}");
        }
    }
}
