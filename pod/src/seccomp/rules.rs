//! What a list of numbers cannot say: arguments of calls, and other machines' calls.

use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter};

use super::calls;

/// linux/sched.h: every `CLONE_NEW…` that clone(2) takes.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// linux/socket.h: families that no app of today needs and that have cost kernels dearly, as Docker leaves them out:
/// DECnet, Econet, ATM SVC, IrDA, Wanpipe, ISDN, CAIF, `AF_ALG`, and `AF_VSOCK`, which reaches the host's past
/// every network namespace.
const NO_FAMILIES: [u64; 9] = [12, 19, 20, 23, 25, 34, 37, 38, 40];

/// linux/socket.h, `AF_MAX` of Linux 6.12.
const FAMILIES: u64 = 46;

/// linux/personality.h: `PER_LINUX`, `PER_LINUX32`, `UNAME26` with each, and the question what it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The calls that the default set has with some arguments only, as Docker's has.
pub(super) fn narrow() -> Vec<(i64, Vec<SeccompRule>)> {
    let rule = |op: SeccompCmpOp, value: u64, len: SeccompCmpArgLen| {
        let condition = SeccompCondition::new(0, len, op, value).expect("every call has a first argument");
        SeccompRule::new(vec![condition]).expect("one condition")
    };
    let number = |name: &str| i64::from(calls::number(name).expect("a call of x86-64"));
    let personalities =
        PERSONALITIES.map(|value| rule(SeccompCmpOp::Eq, value, SeccompCmpArgLen::Dword)).to_vec();
    vec![
        (number("clone"), vec![rule(SeccompCmpOp::MaskedEq(NEW_NAMESPACES), 0, SeccompCmpArgLen::Qword)]),
        (number("socket"), vec![families()]),
        (number("personality"), personalities),
    ]
}

/// Every family but those.
fn families() -> SeccompRule {
    let known = (SeccompCmpOp::Lt, FAMILIES);
    let conditions = NO_FAMILIES.iter().map(|family| (SeccompCmpOp::Ne, *family)).chain([known]);
    let condition = |(op, value)| {
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, value).expect("every call has a first argument")
    };
    SeccompRule::new(conditions.map(condition).collect()).expect("there are conditions")
}

/// linux/audit.h, `AUDIT_ARCH_X86_64`.
const ARCHITECTURE: u32 = 0xc000_003e;

/// asm/unistd.h, `__X32_SYSCALL_BIT`: every call of x32 is at least that.
const X32: u32 = 0x4000_0000;

/// linux/seccomp.h: `SECCOMP_RET_KILL_PROCESS`, and `SECCOMP_RET_ERRNO` with `ENOSYS` (38).
const KILL: u32 = 0x8000_0000;
const NO_SUCH_CALL: u32 = 0x0005_0000 | 38;

/// linux/bpf_common.h: `BPF_LD|BPF_W|BPF_ABS`, `BPF_JMP|BPF_JEQ|BPF_K` and likewise, `BPF_RET|BPF_K`.
const LOAD: u16 = 0x20;
const IF_EQUAL: u16 = 0x15;
const IF_ABOVE: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// The beginning of every program: ends whoever makes calls of another machine, and says of calls that
/// are newer than this list (and of clone3(2), where `no_clone3`) that there are none, so that programs
/// do as they do on an older kernel.
pub(super) fn before(no_clone3: bool) -> Vec<sock_filter> {
    let step = |code: u16, k: u32| sock_filter { code, jt: 0, jf: 0, k };
    let unless = |code: u16, k: u32| sock_filter { code, jt: 0, jf: 1, k };
    let mut program = vec![
        // Offsets in `struct seccomp_data`: `nr`, then `arch`.
        step(LOAD, 4),
        sock_filter { code: IF_EQUAL, jt: 1, jf: 0, k: ARCHITECTURE },
        step(RETURN, KILL),
        step(LOAD, 0),
        unless(IF_AT_LEAST, X32),
        step(RETURN, KILL),
        unless(IF_ABOVE, calls::LAST),
        step(RETURN, NO_SUCH_CALL),
    ];
    if no_clone3 {
        let clone3 = calls::number("clone3").expect("a call of x86-64");
        program.extend([unless(IF_EQUAL, clone3), step(RETURN, NO_SUCH_CALL)]);
    }
    program
}
