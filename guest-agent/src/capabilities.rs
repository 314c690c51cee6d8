//! Names of capabilities (capabilities(7)); a capability's number is its place here
//! (linux/capability.h).

use hull_agent_protocol::message::AgentFault;

use crate::Error;

const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The set of these capabilities, one bit for each number.
pub(crate) fn set(names: &[String]) -> Result<u64, Error> {
    names.iter().try_fold(0, |set, name| Ok(set | 1 << number(name)?))
}

fn number(name: &str) -> Result<usize, Error> {
    let bare = name.strip_prefix("CAP_").unwrap_or_default();
    NAMES.iter().position(|known| *known == bare).ok_or_else(|| {
        Error::new(AgentFault::Pod, format!("capability {name:?} is unknown; see capabilities(7)"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let check =
            |name: &str, want: libc::c_int| assert_eq!(number(name).unwrap(), want as usize, "{name}");
        check("CAP_CHOWN", 0);
        check("CAP_SYS_CHROOT", 18);
        check("CAP_SYS_ADMIN", 21);
        check("CAP_MKNOD", 27);
        check("CAP_SETFCAP", 31);
        check("CAP_SYSLOG", 34);
        check("CAP_CHECKPOINT_RESTORE", 40);
        for name in ["", "CHOWN", "CAP_", "CAP_chown", "CAP_NOPE"] {
            assert!(number(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_set_is_the_sum_of_its_members() {
        let names = ["CAP_CHOWN", "CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"].map(String::from);
        assert_eq!(set(&names).unwrap(), 1 | 1 << 5 | 1 << 34);
    }
}
