//! The programs are run, by a machine that knows what the kernel's does.

use proptest::prelude::*;

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const X86_64: u32 = 0xc000_003e;

/// Runs a program on `struct seccomp_data` (linux/seccomp.h) as the kernel does; panics where the kernel
/// would not load it.
fn run(program: &[u64], architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
    assert!((1..=4096).contains(&program.len()), "BPF_MAXINSNS");
    let mut data = vec![];
    data.extend(call.to_le_bytes());
    data.extend(architecture.to_le_bytes());
    data.extend([0; 8]);
    arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let [c0, c1, jt, jf, a, b, c, d] = program[at].to_le_bytes();
        let k = u32::from_le_bytes([a, b, c, d]);
        at += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { jt } else { jf });
        match u16::from_le_bytes([c0, c1]) {
            0x20 => {
                let first = usize::try_from(k).unwrap();
                accumulator = u32::from_le_bytes(data[first..first + 4].try_into().unwrap());
            }
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => jump(accumulator == k),
            0x25 => jump(accumulator > k),
            0x35 => jump(accumulator >= k),
            0x45 => jump(accumulator & k != 0),
            0x54 => accumulator &= k,
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn call(filter: &Filter, name: &str, first: u64) -> u32 {
    let number = calls::number(name).unwrap_or_else(|| panic!("{name}"));
    run(&filter.compile(), X86_64, number, [first, 0, 0, 0, 0, 0])
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

#[test]
fn the_default_keeps_programs_running_and_the_kernel_alone() {
    let filter = Filter::default_for(&words("CAP_SYS_CHROOT CAP_KILL"));
    for name in ["read", "execve", "openat2", "futex", "rseq", "chroot", "mknod", "setuid", "statx"] {
        assert_eq!(call(&filter, name, 0), ALLOW, "{name}");
    }
    for name in ["mount", "bpf", "unshare", "setns", "keyctl", "io_uring_setup", "kexec_load", "reboot"] {
        assert_eq!(call(&filter, name, 0), ERRNO | 1, "{name}");
    }
    assert_eq!(call(&filter, "clone3", 0), ERRNO | 38);
    assert_eq!(run(&filter.compile(), X86_64, 463, [0; 6]), ERRNO | 38, "newer than the list");
    assert_eq!(call(&filter, "clone", 0x0001_0000), ALLOW);
    assert_eq!(call(&filter, "clone", 0x1000_0000), ERRNO | 1, "CLONE_NEWUSER");
    assert_eq!(call(&filter, "socket", 2), ALLOW);
    for (family, name) in
        [(40, "AF_VSOCK"), (38, "AF_ALG"), (12, "AF_DECnet"), (46, "unknown"), (u64::MAX, "none")]
    {
        assert_eq!(call(&filter, "socket", family), ERRNO | 1, "{name}");
    }
    for (family, name) in
        [(1, "AF_UNIX"), (10, "AF_INET6"), (16, "AF_NETLINK"), (17, "AF_PACKET"), (45, "AF_MCTP")]
    {
        assert_eq!(call(&filter, "socket", family), ALLOW, "{name}");
    }
    assert_eq!(call(&filter, "personality", 0xffff_ffff), ALLOW);
    assert_eq!(call(&filter, "personality", 0x0040_0000), ERRNO | 1, "READ_IMPLIES_EXEC");
}

#[test]
fn capabilities_bring_their_calls() {
    let filter = Filter::default_for(&words("CAP_SYS_ADMIN CAP_SYS_BOOT"));
    for name in ["mount", "unshare", "clone3", "reboot", "lsm_list_modules"] {
        assert_eq!(call(&filter, name, 0), ALLOW, "{name}");
    }
    assert_eq!(call(&filter, "clone", 0x1000_0000), ALLOW);
    assert_eq!(call(&filter, "kexec_load", 0), ERRNO | 1);
    for (_, names) in profiles::OF_CAPABILITIES {
        assert_eq!(numbers(names).count(), names.split_whitespace().count(), "{names}");
    }
}

#[test]
fn calls_of_other_machines_end_the_process() {
    for filter in [Filter::default_for(&[]), Filter::remove(&words("read"), Denial::Kill).filter.unwrap()] {
        let program = filter.compile();
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), KILL, "32-bit x86");
        assert_eq!(run(&program, X86_64, 0x4000_0001, [0; 6]), KILL, "x32");
        assert_eq!(run(&program, X86_64, u32::MAX, [0; 6]), KILL);
        assert_eq!(run(&program, X86_64, 1, [0; 6]), ALLOW);
    }
}

#[test]
fn retained_calls_are_the_only_ones() {
    let read = Filter::retain(&words("read write stime"), Denial::Kill);
    assert_eq!(read.unknown, [""; 0]);
    let filter = read.filter.unwrap();
    for name in ["read", "write", "execve", "exit_group", "rt_sigreturn"] {
        assert_eq!(call(&filter, name, 0), ALLOW, "{name}");
    }
    assert_eq!(call(&filter, "open", 0), KILL);
    let filter = Filter::retain(&words("@systemd/network-io"), Denial::Errno(errno("EACCES").unwrap()));
    let filter = filter.filter.unwrap();
    assert_eq!(call(&filter, "socket", 40), ALLOW);
    assert_eq!(call(&filter, "open", 0), ERRNO | 13);
}

#[test]
fn removed_calls_are_the_only_ones_denied() {
    let filter = Filter::remove(&words("@systemd/mount socket"), Denial::Errno(1)).filter.unwrap();
    for name in ["mount", "fsopen", "pivot_root", "socket"] {
        assert_eq!(call(&filter, name, 2), ERRNO | 1, "{name}");
    }
    for name in ["read", "bpf", "clone3", "io_uring_setup"] {
        assert_eq!(call(&filter, name, 0), ALLOW, "{name}");
    }
    // A set that allows some arguments of a call denies the call as a whole.
    let filter = Filter::remove(&words("@docker/default-whitelist"), Denial::Kill).filter.unwrap();
    assert_eq!(call(&filter, "clone", 0), KILL);
}

#[test]
fn sets_have_rkts_names() {
    let all = "@docker/default-blacklist @docker/default-whitelist @rkt/default-blacklist \
               @rkt/default-whitelist @systemd/clock @systemd/default-whitelist @systemd/mount \
               @systemd/network-io @systemd/obsolete @systemd/privileged @systemd/process @systemd/raw-io";
    for name in all.split_whitespace() {
        for word in profiles::members(name).unwrap_or_else(|| panic!("{name}")).split_whitespace() {
            assert!(calls::number(word).is_some() || calls::is_foreign(word), "{name}: {word}");
        }
        let read = Filter::remove(&words(name), Denial::Kill);
        assert_eq!(read.unknown, [""; 0], "{name}");
        read.filter.unwrap().compile();
    }
    assert!(Filter::retain(&words("@appc.io/all"), Denial::Kill).filter.is_none());
    let nothing = Filter::retain(&words("@appc.io/empty"), Denial::Kill).filter.unwrap();
    assert_eq!((call(&nothing, "read", 0), call(&nothing, "execve", 0)), (KILL, ALLOW));
    let default = Filter::remove(&words("@appc.io/empty"), Denial::Kill).filter.unwrap();
    assert_eq!((call(&default, "read", 0), call(&default, "mount", 0)), (ALLOW, KILL));
    let unknown = Filter::retain(&words("read @systemd/nope raed"), Denial::Kill).unknown;
    assert_eq!(unknown, ["@systemd/nope", "raed"]);
}

#[test]
fn errors_have_names() {
    for (name, want) in
        [("EPERM", 1), ("EAGAIN", 11), ("EWOULDBLOCK", 11), ("ENOTSUP", 95), ("EHWPOISON", 133)]
    {
        assert_eq!(errno(name), Some(want), "{name}");
    }
    for name in ["", "1", "eperm", "ENOPE", "UnknownErrno"] {
        assert_eq!(errno(name), None, "{name}");
    }
}

proptest! {
    #[test]
    fn any_words_make_a_program_that_ends(
        set in proptest::collection::vec("(@(systemd|docker)/[a-z-]{0,20}|[a-z_0-9]{0,12}|read|clone|@appc.io/(all|empty))", 0..20),
        retain in any::<bool>(),
        number in 0u32..600,
    ) {
        let read = if retain { Filter::retain(&set, Denial::Kill) } else { Filter::remove(&set, Denial::Errno(1)) };
        if let Some(filter) = read.filter {
            let said = run(&filter.compile(), X86_64, number, [0; 6]);
            prop_assert!([ALLOW, KILL, ERRNO | 1, ERRNO | 38].contains(&said), "{said:#x}");
        }
    }
}
