//! Which file a command means, and why it cannot be executed.

/// Bytes of a program that are looked at to explain why it does not run. The kernel looks at no more of
/// a script (`BINPRM_BUF_SIZE` is 256), and linkers put program headers and interpreter on the first page.
pub(crate) const HEAD_MAX: usize = 4096;

/// `EM_X86_64` of elf.h.
const MACHINE: u16 = 62;

/// `PT_INTERP` of elf.h.
const PT_INTERP: u32 = 3;

/// The files that `command` may mean, in the order they are tried: itself if it has a slash, else one
/// in each directory of `path` (execvp(3)).
pub(crate) fn candidates(command: &str, path: &str) -> Vec<String> {
    if command.contains('/') {
        return vec![command.to_owned()];
    }
    if command.is_empty() {
        return vec![];
    }
    path.split(':')
        .map(|dir| match dir.trim_end_matches('/') {
            // An empty part means the working directory, a bare slash the root.
            "" if dir.is_empty() => format!("./{command}"),
            dir => format!("{dir}/{command}"),
        })
        .collect()
}

/// The file a program needs to be run by: that of its `#!` line, or its dynamic linker.
pub(crate) fn interpreter(head: &[u8]) -> Option<String> {
    let name = match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
            line.split(|byte| byte.is_ascii_whitespace()).next()?
        }
        None => elf_interpreter(head)?,
    };
    Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty())
}

/// Why the kernel does not know how to run a program that begins so (ENOEXEC).
pub(crate) fn why_no_format(head: &[u8]) -> String {
    match machine(head) {
        Some(MACHINE) => "it is damaged".into(),
        Some(other) => match machine_name(other) {
            Some(name) => format!("it was built for {name}, this machine is x86-64"),
            None => format!("it was built for another machine (ELF machine {other}), this one is x86-64"),
        },
        None if head.is_empty() => "it is empty".into(),
        None => "it is neither an ELF program nor a script that begins with #!".into(),
    }
}

fn machine_name(machine: u16) -> Option<&'static str> {
    // elf.h, EM_*.
    match machine {
        3 => Some("i386"),
        8 => Some("mips"),
        20 | 21 => Some("powerpc"),
        22 => Some("s390"),
        40 => Some("arm"),
        183 => Some("aarch64"),
        243 => Some("riscv"),
        258 => Some("loongarch"),
        _ => None,
    }
}

/// `e_machine`, for either byte order; `None` if this is no ELF file.
fn machine(head: &[u8]) -> Option<u16> {
    let bytes = number::<2>(head, 18).filter(|_| head.starts_with(b"\x7fELF"))?;
    match head.get(5) {
        Some(2) => Some(u16::from_be_bytes(bytes)),
        _ => Some(u16::from_le_bytes(bytes)),
    }
}

/// The content of the `PT_INTERP` segment of a 64-bit little-endian ELF file (elf(5)).
fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    const LITTLE_64: [u8; 6] = *b"\x7fELF\x02\x01";
    head.strip_prefix(&LITTLE_64)?;
    let table = usize::try_from(u64::from_le_bytes(number(head, 32)?)).ok()?;
    let entry_size = usize::from(u16::from_le_bytes(number(head, 54)?));
    let count = usize::from(u16::from_le_bytes(number(head, 56)?));
    let entry = (0..count)
        .map_while(|index| index.checked_mul(entry_size)?.checked_add(table))
        .find(|entry| number(head, *entry).map(u32::from_le_bytes) == Some(PT_INTERP))?;
    let first = usize::try_from(u64::from_le_bytes(number(head, entry.checked_add(8)?)?)).ok()?;
    let len = usize::try_from(u64::from_le_bytes(number(head, entry.checked_add(32)?)?)).ok()?;
    let name = head.get(first..first.checked_add(len)?)?;
    name.split(|byte| *byte == 0).next()
}

fn number<const N: usize>(head: &[u8], first: usize) -> Option<[u8; N]> {
    head.get(first..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bare_command_is_searched_and_a_path_is_not() {
        assert_eq!(candidates("/bin/ls", "/a:/b"), ["/bin/ls"]);
        assert_eq!(candidates("./ls", "/a:/b"), ["./ls"]);
        assert_eq!(candidates("ls", "/a:/b/::/"), ["/a/ls", "/b/ls", "./ls", "/ls"]);
        assert!(candidates("", "/a").is_empty());
    }

    #[test]
    fn the_interpreter_of_a_script_is_its_first_word() {
        let check = |head: &[u8], want: Option<&str>| assert_eq!(interpreter(head).as_deref(), want);
        check(b"#!/bin/sh\necho", Some("/bin/sh"));
        check(b"#! /usr/bin/env python3\n", Some("/usr/bin/env"));
        check(b"#!/bin/sh\r\n", Some("/bin/sh"));
        check(b"#!\n", None);
        check(b"echo", None);
        check(b"", None);
    }

    #[test]
    fn the_interpreter_of_a_program_is_its_dynamic_linker() {
        let mut head = vec![0; 200];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18] = 62;
        head[32] = 64; // e_phoff
        head[54] = 56; // e_phentsize
        head[56] = 2; // e_phnum
        head[120] = 3; // The second entry is PT_INTERP,
        head[128] = 180; // at offset 180,
        head[152] = 12; // 12 bytes long.
        head[180..192].copy_from_slice(b"/lib/ld.so.2");
        assert_eq!(interpreter(&head).as_deref(), Some("/lib/ld.so.2"));
        head[152] = 255;
        assert_eq!(interpreter(&head), None);
    }

    #[test]
    fn a_program_for_another_machine_is_named() {
        let mut head = b"\x7fELF\x02\x01".to_vec();
        head.resize(64, 0);
        head[18] = 183;
        assert_eq!(why_no_format(&head), "it was built for aarch64, this machine is x86-64");
        head[5] = 2;
        head[18..20].copy_from_slice(&[0, 22]);
        assert_eq!(why_no_format(&head), "it was built for s390, this machine is x86-64");
        assert!(why_no_format(b"hello").contains("neither"));
        assert!(why_no_format(b"").contains("empty"));
    }

    proptest! {
        #[test]
        fn no_head_is_too_strange(tail in proptest::collection::vec(any::<u8>(), 0..256)) {
            interpreter(&tail);
            why_no_format(&tail);
            let elf = [b"\x7fELF\x02\x01".as_slice(), &tail].concat();
            interpreter(&elf);
            why_no_format(&elf);
        }
    }
}
