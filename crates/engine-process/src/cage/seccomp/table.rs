//! Which system calls a task may make, as data: each group with its reason.
//!
//! A call is allowed, allowed by its arguments, refused with EPERM (and counted), or unknown,
//! which is answered ENOSYS: C libraries fall back from calls newer than this table.

/// A group of calls and why they are treated alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) action: Action,
    #[cfg_attr(not(test), expect(dead_code, reason = "for the reader and the test"))]
    pub(crate) reason: &'static str,
    pub(crate) calls: &'static [(&'static str, i64)],
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Allow,
    /// EPERM, counted in the attempt's record.
    Refuse,
    /// "No such call": its caller has another way.
    Absent,
    /// Allowed unless an argument says otherwise.
    Check(Check),
}

/// Which arguments decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Check {
    /// Flags of clone(2) that make namespaces are refused.
    CloneFlags,
    /// Only local sockets, and internet sockets of the usual kinds.
    SocketFamily,
    /// Only pairs of local sockets.
    PairFamily,
    /// Not the requests that type on a terminal.
    TerminalRequests,
    /// Only execution domains that change nothing but the address layout.
    Personality,
    /// Not the options that act on others.
    ProcessOptions,
    /// No second listener on a filter.
    FilterFlags,
}

/// `CLONE_NEW*` as clone(2) takes them: cgroup, uts, ipc, user, pid, net, mount.
pub(crate) const CLONE_NAMESPACES: u32 = 0x7E02_0000;

/// AF_UNIX, AF_INET, AF_INET6. Others reach past the network namespace (AF_VSOCK: the
/// hypervisor), or parts of the kernel that only administrators use.
pub(crate) const FAMILIES: [u32; 3] = [1, 2, 10];

/// Streams, datagrams, and raw sockets (which the kernel refuses itself), without their flags.
pub(crate) const SOCKET_TYPES: [u32; 3] = [1, 2, 3];
pub(crate) const SOCKET_TYPE_BITS: u32 = 0xf;

/// What an internet socket may speak: its usual protocol, ICMP, TCP, UDP, ICMPv6. For most others the
/// kernel would load a module at the word of a task.
pub(crate) const PROTOCOLS: [u32; 5] = [0, 1, 6, 17, 58];

/// TIOCSTI and TIOCLINUX type into a terminal; TIOCCONS and TIOCSETD take it over.
pub(crate) const TERMINAL_REQUESTS: [u32; 4] = [0x5412, 0x541C, 0x541D, 0x5423];

/// `PR_SCHED_CORE`: where processors are threads of one core, the kernel would keep every other
/// program off the sibling of one that has asked not to share, the owner's too. See "Core
/// Scheduling" in the kernel's documentation.
pub(crate) const PROCESS_OPTIONS: [u32; 1] = [62];

/// Linux, 32-bit layout, no address randomisation, old mmap layout, and "tell me".
pub(crate) const PERSONALITIES: [u32; 6] = [0, 0x8, 0x4_0000, 0x20_0000, 0x24_0000, 0xFFFF_FFFF];

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
pub(crate) const FILTER_LISTENER: u32 = 1 << 3;

macro_rules! groups {
    ($($action:expr, $reason:literal: $($call:ident)+;)+) => {
        &[$(Group {
            action: $action,
            reason: $reason,
            calls: &[$((stringify!($call), paste_number!($call))),+],
        }),+]
    };
}

/// `libc` names the numbers `SYS_…`; the table names the calls as manual pages do.
macro_rules! paste_number {
    ($call:ident) => {
        number::$call
    };
}

/// Calls of every architecture.
pub(crate) const COMMON: &[Group] = groups! {
    Action::Allow, "files that the mounts show": read write close fstat lseek pread64 pwrite64
        readv writev preadv pwritev preadv2 pwritev2 openat openat2 close_range dup dup3 fcntl
        flock fsync fdatasync sync_file_range truncate ftruncate fallocate fadvise64
        readahead sendfile splice tee vmsplice copy_file_range;
    Action::Allow, "directories and names in scratch": getdents64 getcwd chdir fchdir mkdirat
        unlinkat renameat2 linkat symlinkat readlinkat mknodat;
    Action::Allow, "what a file is": newfstatat statx statfs fstatfs faccessat faccessat2
        fchmod fchmodat fchmodat2 fchown fchownat utimensat umask getxattr lgetxattr fgetxattr
        listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr
        fremovexattr;
    Action::Allow, "waiting for descriptors": ppoll pselect6 epoll_create1 epoll_ctl epoll_pwait
        epoll_pwait2 eventfd2 signalfd4 timerfd_create timerfd_settime timerfd_gettime pipe2
        inotify_init1 inotify_add_watch inotify_rm_watch;
    Action::Allow, "asynchronous reads of databases": io_setup io_destroy io_getevents io_submit
        io_cancel;
    Action::Allow, "memory of its own": mmap mprotect munmap brk mremap msync mincore madvise mlock mlock2
        munlock mlockall munlockall memfd_create membarrier pkey_mprotect pkey_alloc pkey_free
        mseal get_mempolicy set_mempolicy mbind remap_file_pages;
    Action::Allow, "processes and threads of the task": execve execveat exit exit_group wait4
        waitid kill tkill tgkill getpid getppid gettid getpgid setpgid getsid setsid
        set_tid_address set_robust_list get_robust_list futex futex_waitv rseq
        pidfd_open pidfd_send_signal restart_syscall process_mrelease;
    Action::Allow, "signals, which stay within the cage": rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending
        rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigsuspend sigaltstack;
    Action::Allow, "who and where am I; ids cannot change to others than one's own": getuid
        geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid
        setresuid setresgid setgroups setfsuid setfsgid capget capset uname sysinfo times
        getrusage getcpu;
    Action::Allow, "limits can only be lowered": getpriority setpriority prlimit64
        getrlimit setrlimit;
    Action::Allow, "scheduling that cannot raise": sched_yield sched_getparam sched_getscheduler
        sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr
        sched_setaffinity sched_getaffinity ioprio_get;
    Action::Allow, "clocks to read and to wait for": clock_gettime clock_getres clock_nanosleep
        nanosleep gettimeofday getitimer setitimer timer_create timer_settime timer_gettime
        timer_getoverrun timer_delete;
    Action::Allow, "messages between processes of the task": shmget shmat shmctl shmdt semget
        semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend
        mq_timedreceive mq_notify mq_getsetattr;
    Action::Allow, "sockets, whose families are checked when made": connect accept accept4 sendto
        recvfrom sendmsg sendmmsg recvmsg recvmmsg shutdown bind listen getsockname getpeername
        setsockopt getsockopt;
    Action::Allow, "random numbers": getrandom;
    Action::Allow, "a task may confine itself further": landlock_create_ruleset
        landlock_add_rule landlock_restrict_self;
    Action::Check(Check::FilterFlags), "a second listener could overrule ours": seccomp;
    Action::Check(Check::CloneFlags), "threads and forks, but no namespaces": clone;
    Action::Check(Check::SocketFamily), "AF_VSOCK reaches the hypervisor": socket;
    Action::Check(Check::PairFamily), "pairs are local": socketpair;
    Action::Check(Check::TerminalRequests), "no typing on the owner's terminal": ioctl;
    Action::Check(Check::ProcessOptions), "nobody else is kept off a core": prctl;
    Action::Check(Check::Personality), "no foreign execution domain": personality;
    Action::Absent, "its flags lie in memory, where a filter cannot see them": clone3;
    Action::Refuse, "mounts would undo the private root": mount umount2 pivot_root chroot
        open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr;
    Action::Refuse, "namespaces give capabilities over parts of the kernel": unshare setns;
    Action::Refuse, "looks into or changes other processes": ptrace process_vm_readv
        process_vm_writev kcmp pidfd_getfd process_madvise move_pages migrate_pages;
    Action::Refuse, "programs in the kernel": bpf perf_event_open init_module finit_module
        delete_module kexec_load;
    Action::Refuse, "kernel interfaces with a long record of holes": io_uring_setup
        io_uring_enter io_uring_register userfaultfd memfd_secret lookup_dcookie nfsservctl;
    Action::Refuse, "writes out what the owner's programs keep for later": sync syncfs;
    Action::Refuse, "keys of the owner's sessions": add_key request_key keyctl;
    Action::Refuse, "opens files by inode, past every mount": name_to_handle_at
        open_by_handle_at;
    Action::Refuse, "watches whole file systems": fanotify_init fanotify_mark;
    Action::Refuse, "would leave idle priority": sched_setscheduler sched_setparam sched_setattr
        ioprio_set;
    Action::Refuse, "the PC's clock": settimeofday clock_settime clock_adjtime adjtimex;
    Action::Refuse, "the PC as a whole": reboot swapon swapoff acct quotactl quotactl_fd syslog
        sethostname setdomainname vhangup set_mempolicy_home_node;
};

/// Calls that only x86-64 still has, mostly older forms of the ones above.
#[cfg(target_arch = "x86_64")]
pub(crate) const LEGACY: &[Group] = groups! {
    Action::Allow, "older forms of file calls": open creat stat lstat access pipe dup2 getdents
        rename mkdir rmdir link unlink symlink readlink chmod chown lchown mknod utime utimes
        futimesat renameat poll select epoll_create epoll_wait inotify_init signalfd eventfd;
    Action::Allow, "older forms of process calls": fork vfork getpgrp pause alarm time
        arch_prctl;
    Action::Refuse, "segments and ports of the processor": modify_ldt iopl ioperm;
    Action::Refuse, "calls that no current program makes": uselib ustat sysfs _sysctl kexec_file_load;
};

/// Other architectures have no older forms; `renameat` lives on in some.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) const LEGACY: &[Group] = groups! {
    Action::Refuse, "the PC as a whole": kexec_file_load;
};

/// Numbers under the names of the manual pages.
#[expect(non_upper_case_globals, reason = "the names are the calls' own")]
mod number {
    macro_rules! numbers {
        ($($name:ident = $sys:ident),+ $(,)?) => {
            $(pub(super) const $name: i64 = libc::$sys;)+
        };
    }
    numbers! {
        read = SYS_read, write = SYS_write, close = SYS_close, fstat = SYS_fstat,
        lseek = SYS_lseek, pread64 = SYS_pread64, pwrite64 = SYS_pwrite64, readv = SYS_readv,
        writev = SYS_writev, preadv = SYS_preadv, pwritev = SYS_pwritev, preadv2 = SYS_preadv2,
        pwritev2 = SYS_pwritev2, openat = SYS_openat, openat2 = SYS_openat2,
        close_range = SYS_close_range, dup = SYS_dup, dup3 = SYS_dup3, fcntl = SYS_fcntl,
        flock = SYS_flock, fsync = SYS_fsync, fdatasync = SYS_fdatasync, syncfs = SYS_syncfs,
        sync = SYS_sync, sync_file_range = SYS_sync_file_range, truncate = SYS_truncate,
        ftruncate = SYS_ftruncate, fallocate = SYS_fallocate, fadvise64 = SYS_fadvise64,
        readahead = SYS_readahead, sendfile = SYS_sendfile, splice = SYS_splice, tee = SYS_tee,
        vmsplice = SYS_vmsplice, copy_file_range = SYS_copy_file_range,
        getdents64 = SYS_getdents64, getcwd = SYS_getcwd, chdir = SYS_chdir, fchdir = SYS_fchdir,
        mkdirat = SYS_mkdirat, unlinkat = SYS_unlinkat, renameat2 = SYS_renameat2,
        linkat = SYS_linkat, symlinkat = SYS_symlinkat, readlinkat = SYS_readlinkat,
        mknodat = SYS_mknodat, newfstatat = SYS_newfstatat, statx = SYS_statx,
        statfs = SYS_statfs, fstatfs = SYS_fstatfs, faccessat = SYS_faccessat,
        faccessat2 = SYS_faccessat2, fchmod = SYS_fchmod, fchmodat = SYS_fchmodat,
        fchmodat2 = SYS_fchmodat2, fchown = SYS_fchown, fchownat = SYS_fchownat,
        utimensat = SYS_utimensat, umask = SYS_umask, getxattr = SYS_getxattr,
        lgetxattr = SYS_lgetxattr, fgetxattr = SYS_fgetxattr, listxattr = SYS_listxattr,
        llistxattr = SYS_llistxattr, flistxattr = SYS_flistxattr, setxattr = SYS_setxattr,
        lsetxattr = SYS_lsetxattr, fsetxattr = SYS_fsetxattr, removexattr = SYS_removexattr,
        lremovexattr = SYS_lremovexattr, fremovexattr = SYS_fremovexattr, ppoll = SYS_ppoll,
        pselect6 = SYS_pselect6, epoll_create1 = SYS_epoll_create1, epoll_ctl = SYS_epoll_ctl,
        epoll_pwait = SYS_epoll_pwait, epoll_pwait2 = SYS_epoll_pwait2, eventfd2 = SYS_eventfd2,
        signalfd4 = SYS_signalfd4, timerfd_create = SYS_timerfd_create,
        timerfd_settime = SYS_timerfd_settime, timerfd_gettime = SYS_timerfd_gettime,
        pipe2 = SYS_pipe2, inotify_init1 = SYS_inotify_init1,
        inotify_add_watch = SYS_inotify_add_watch, inotify_rm_watch = SYS_inotify_rm_watch,
        io_setup = SYS_io_setup, io_destroy = SYS_io_destroy, io_getevents = SYS_io_getevents,
        io_submit = SYS_io_submit, io_cancel = SYS_io_cancel, mmap = SYS_mmap,
        mprotect = SYS_mprotect, munmap = SYS_munmap, brk = SYS_brk, mremap = SYS_mremap,
        msync = SYS_msync, mincore = SYS_mincore, madvise = SYS_madvise, mlock = SYS_mlock,
        mlock2 = SYS_mlock2, munlock = SYS_munlock, mlockall = SYS_mlockall,
        munlockall = SYS_munlockall, memfd_create = SYS_memfd_create,
        membarrier = SYS_membarrier, pkey_mprotect = SYS_pkey_mprotect,
        pkey_alloc = SYS_pkey_alloc, pkey_free = SYS_pkey_free, mseal = SYS_mseal,
        get_mempolicy = SYS_get_mempolicy, set_mempolicy = SYS_set_mempolicy, mbind = SYS_mbind,
        remap_file_pages = SYS_remap_file_pages, execve = SYS_execve, execveat = SYS_execveat,
        exit = SYS_exit, exit_group = SYS_exit_group, wait4 = SYS_wait4, waitid = SYS_waitid,
        kill = SYS_kill, tkill = SYS_tkill, tgkill = SYS_tgkill, getpid = SYS_getpid,
        getppid = SYS_getppid, gettid = SYS_gettid, getpgid = SYS_getpgid, setpgid = SYS_setpgid,
        getsid = SYS_getsid, setsid = SYS_setsid, set_tid_address = SYS_set_tid_address,
        set_robust_list = SYS_set_robust_list, get_robust_list = SYS_get_robust_list,
        futex = SYS_futex, futex_waitv = SYS_futex_waitv, rseq = SYS_rseq, prctl = SYS_prctl,
        pidfd_open = SYS_pidfd_open, pidfd_send_signal = SYS_pidfd_send_signal,
        restart_syscall = SYS_restart_syscall, process_mrelease = SYS_process_mrelease,
        rt_sigaction = SYS_rt_sigaction, rt_sigprocmask = SYS_rt_sigprocmask,
        rt_sigreturn = SYS_rt_sigreturn, rt_sigpending = SYS_rt_sigpending,
        rt_sigtimedwait = SYS_rt_sigtimedwait, rt_sigqueueinfo = SYS_rt_sigqueueinfo,
        rt_tgsigqueueinfo = SYS_rt_tgsigqueueinfo, rt_sigsuspend = SYS_rt_sigsuspend,
        sigaltstack = SYS_sigaltstack, getuid = SYS_getuid, geteuid = SYS_geteuid,
        getgid = SYS_getgid, getegid = SYS_getegid, getresuid = SYS_getresuid,
        getresgid = SYS_getresgid, getgroups = SYS_getgroups, setuid = SYS_setuid,
        setgid = SYS_setgid, setreuid = SYS_setreuid, setregid = SYS_setregid,
        setresuid = SYS_setresuid, setresgid = SYS_setresgid, setgroups = SYS_setgroups,
        setfsuid = SYS_setfsuid, setfsgid = SYS_setfsgid, capget = SYS_capget,
        capset = SYS_capset, uname = SYS_uname, sysinfo = SYS_sysinfo, times = SYS_times,
        getrusage = SYS_getrusage, getcpu = SYS_getcpu, getpriority = SYS_getpriority,
        setpriority = SYS_setpriority, prlimit64 = SYS_prlimit64, getrlimit = SYS_getrlimit,
        setrlimit = SYS_setrlimit, sched_yield = SYS_sched_yield,
        sched_getparam = SYS_sched_getparam, sched_getscheduler = SYS_sched_getscheduler,
        sched_get_priority_max = SYS_sched_get_priority_max,
        sched_get_priority_min = SYS_sched_get_priority_min,
        sched_rr_get_interval = SYS_sched_rr_get_interval, sched_getattr = SYS_sched_getattr,
        sched_setaffinity = SYS_sched_setaffinity, sched_getaffinity = SYS_sched_getaffinity,
        ioprio_get = SYS_ioprio_get, clock_gettime = SYS_clock_gettime,
        clock_getres = SYS_clock_getres, clock_nanosleep = SYS_clock_nanosleep,
        nanosleep = SYS_nanosleep, gettimeofday = SYS_gettimeofday, getitimer = SYS_getitimer,
        setitimer = SYS_setitimer, timer_create = SYS_timer_create,
        timer_settime = SYS_timer_settime, timer_gettime = SYS_timer_gettime,
        timer_getoverrun = SYS_timer_getoverrun, timer_delete = SYS_timer_delete,
        shmget = SYS_shmget, shmat = SYS_shmat, shmctl = SYS_shmctl, shmdt = SYS_shmdt,
        semget = SYS_semget, semop = SYS_semop, semctl = SYS_semctl, semtimedop = SYS_semtimedop,
        msgget = SYS_msgget, msgsnd = SYS_msgsnd, msgrcv = SYS_msgrcv, msgctl = SYS_msgctl,
        mq_open = SYS_mq_open, mq_unlink = SYS_mq_unlink, mq_timedsend = SYS_mq_timedsend,
        mq_timedreceive = SYS_mq_timedreceive, mq_notify = SYS_mq_notify,
        mq_getsetattr = SYS_mq_getsetattr, connect = SYS_connect, accept = SYS_accept,
        accept4 = SYS_accept4, sendto = SYS_sendto, recvfrom = SYS_recvfrom,
        sendmsg = SYS_sendmsg, sendmmsg = SYS_sendmmsg, recvmsg = SYS_recvmsg,
        recvmmsg = SYS_recvmmsg, shutdown = SYS_shutdown, bind = SYS_bind, listen = SYS_listen,
        getsockname = SYS_getsockname, getpeername = SYS_getpeername,
        setsockopt = SYS_setsockopt, getsockopt = SYS_getsockopt, getrandom = SYS_getrandom,
        landlock_create_ruleset = SYS_landlock_create_ruleset,
        landlock_add_rule = SYS_landlock_add_rule,
        landlock_restrict_self = SYS_landlock_restrict_self, seccomp = SYS_seccomp,
        clone = SYS_clone, socket = SYS_socket, socketpair = SYS_socketpair, ioctl = SYS_ioctl,
        personality = SYS_personality, clone3 = SYS_clone3, mount = SYS_mount,
        umount2 = SYS_umount2, pivot_root = SYS_pivot_root, chroot = SYS_chroot,
        open_tree = SYS_open_tree, move_mount = SYS_move_mount, fsopen = SYS_fsopen,
        fsconfig = SYS_fsconfig, fsmount = SYS_fsmount, fspick = SYS_fspick,
        mount_setattr = SYS_mount_setattr, unshare = SYS_unshare, setns = SYS_setns,
        ptrace = SYS_ptrace, process_vm_readv = SYS_process_vm_readv,
        process_vm_writev = SYS_process_vm_writev, kcmp = SYS_kcmp,
        pidfd_getfd = SYS_pidfd_getfd, process_madvise = SYS_process_madvise,
        move_pages = SYS_move_pages, migrate_pages = SYS_migrate_pages, bpf = SYS_bpf,
        perf_event_open = SYS_perf_event_open, init_module = SYS_init_module,
        finit_module = SYS_finit_module, delete_module = SYS_delete_module,
        kexec_load = SYS_kexec_load, io_uring_setup = SYS_io_uring_setup,
        io_uring_enter = SYS_io_uring_enter, io_uring_register = SYS_io_uring_register,
        userfaultfd = SYS_userfaultfd, memfd_secret = SYS_memfd_secret,
        lookup_dcookie = SYS_lookup_dcookie, nfsservctl = SYS_nfsservctl, add_key = SYS_add_key,
        request_key = SYS_request_key, keyctl = SYS_keyctl,
        name_to_handle_at = SYS_name_to_handle_at, open_by_handle_at = SYS_open_by_handle_at,
        fanotify_init = SYS_fanotify_init, fanotify_mark = SYS_fanotify_mark,
        sched_setscheduler = SYS_sched_setscheduler, sched_setparam = SYS_sched_setparam,
        sched_setattr = SYS_sched_setattr, ioprio_set = SYS_ioprio_set,
        settimeofday = SYS_settimeofday, clock_settime = SYS_clock_settime,
        clock_adjtime = SYS_clock_adjtime, adjtimex = SYS_adjtimex, reboot = SYS_reboot,
        swapon = SYS_swapon, swapoff = SYS_swapoff, acct = SYS_acct, quotactl = SYS_quotactl,
        quotactl_fd = SYS_quotactl_fd, syslog = SYS_syslog, sethostname = SYS_sethostname,
        setdomainname = SYS_setdomainname, vhangup = SYS_vhangup,
        set_mempolicy_home_node = SYS_set_mempolicy_home_node,
        kexec_file_load = SYS_kexec_file_load,
    }
    #[cfg(target_arch = "x86_64")]
    numbers! {
        open = SYS_open, creat = SYS_creat, stat = SYS_stat, lstat = SYS_lstat,
        access = SYS_access, pipe = SYS_pipe, dup2 = SYS_dup2, getdents = SYS_getdents,
        rename = SYS_rename, mkdir = SYS_mkdir, rmdir = SYS_rmdir, link = SYS_link,
        unlink = SYS_unlink, symlink = SYS_symlink, readlink = SYS_readlink, chmod = SYS_chmod,
        chown = SYS_chown, lchown = SYS_lchown, mknod = SYS_mknod, utime = SYS_utime,
        utimes = SYS_utimes, futimesat = SYS_futimesat, renameat = SYS_renameat, poll = SYS_poll,
        select = SYS_select, epoll_create = SYS_epoll_create, epoll_wait = SYS_epoll_wait,
        inotify_init = SYS_inotify_init, signalfd = SYS_signalfd, eventfd = SYS_eventfd,
        fork = SYS_fork, vfork = SYS_vfork, getpgrp = SYS_getpgrp, pause = SYS_pause,
        alarm = SYS_alarm, time = SYS_time, arch_prctl = SYS_arch_prctl,
        modify_ldt = SYS_modify_ldt, iopl = SYS_iopl, ioperm = SYS_ioperm, uselib = SYS_uselib,
        ustat = SYS_ustat, sysfs = SYS_sysfs, _sysctl = SYS__sysctl,
    }
}

/// Every group.
pub(crate) fn groups() -> impl Iterator<Item = &'static Group> {
    COMMON.iter().chain(LEGACY)
}

/// The name of the call with this number.
pub(crate) fn name(number: i64) -> Option<&'static str> {
    groups()
        .flat_map(|group| group.calls)
        .find(|call| call.1 == number)
        .map(|call| call.0)
}
