//! Kernel files, good and hostile.

use std::io::Write;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;

const LOW_END: u64 = 32 << 20;

/// A minimal kernel: one segment of four bytes at 2 MiB, zero-filled to 4 KiB.
fn kernel() -> Vec<u8> {
    let mut file = vec![0; HEADER_SIZE + SEGMENT_SIZE];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &EXECUTABLE.to_le_bytes());
    put(18, &X86_64.to_le_bytes());
    put(24, &0x20_0001_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(64, &PT_LOAD.to_le_bytes());
    put(64 + 8, &120_u64.to_le_bytes());
    put(64 + 16, &0xffff_ffff_8020_0000_u64.to_le_bytes());
    put(64 + 24, &0x20_0000_u64.to_le_bytes());
    put(64 + 32, &4_u64.to_le_bytes());
    put(64 + 40, &4096_u64.to_le_bytes());
    file.extend(b"code");
    file
}

fn load_bytes(bytes: &[u8]) -> Result<(GuestRam, Kernel), Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let ram = GuestRam::new(&crate::layout::ram_regions(32)).unwrap();
    load(&ram, &file, LOW_END).map(|kernel| (ram, kernel))
}

#[test]
fn segments_land_where_they_are_linked() {
    let (ram, kernel) = load_bytes(&kernel()).unwrap();
    assert_eq!(kernel, Kernel { entry: 0x20_0001, end: 0x20_1000, bytes_copied: 4 });
    let mut got = [9; 5];
    ram.memory().read_slice(&mut got, GuestAddress(0x20_0000)).unwrap();
    assert_eq!(&got, b"code\0");
}

/// Overwrites `bytes` at `at` and says which words the error must hold.
#[track_caller]
fn check(at: usize, bytes: &[u8], want: &str) {
    let mut file = kernel();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let err = load_bytes(&file).unwrap_err();
    assert_eq!(*err.kind(), Kind::BadKernel);
    assert!(err.to_string().contains(want), "{err}");
}

#[test]
fn each_fault_of_the_file_is_named() {
    check(0, b"MZ", "bzImage");
    check(0, b"#!/b", "not an ELF file");
    check(4, &[1], "another machine");
    check(18, &[183], "another machine");
    check(16, &[3], "no executable");
    check(56, &[0], "0 program headers");
    check(56, &[33], "33 program headers");
    check(54, &[55], "unknown size");
    check(32, &[0xff; 8], "program headers lie behind its end");
    check(24, &[0; 8], "entry point 0x0");
    check(64 + 8, &[0xff; 8], "lies behind its end");
    check(64 + 8, &121_u64.to_le_bytes(), "lies behind its end");
    check(64 + 16, &0x40_0000_u64.to_le_bytes(), "a program, not a kernel");
    check(64 + 24, &0x1000_u64.to_le_bytes(), "does not fit");
    check(64 + 24, &(LOW_END - 4095).to_le_bytes(), "does not fit");
    check(64 + 24, &u64::MAX.to_le_bytes(), "does not fit");
    check(64 + 32, &4097_u64.to_le_bytes(), "larger in the file");
    assert!(load_bytes(b"\x7fELF").unwrap_err().to_string().contains("4 bytes"));
}

/// linux-loader: notes and headers whose sizes made the loader walk for ever.
#[test]
fn ghsa_52h2_m2cf_9jh6_the_loader_ends() {
    for (at, bytes) in [
        (54, &[0, 0][..]),
        (54, &[0xff, 0xff]),
        (56, &[0xff, 0xff]),
        (32, &[0xff; 8]),
        (64 + 32, &[0xff; 8]),
        (64 + 40, &[0xff; 8]),
    ] {
        let mut file = kernel();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        assert!(load_bytes(&file).is_err(), "{at} {bytes:?}");
    }
    // A note is never followed: a kernel with only notes has no segment.
    let mut file = kernel();
    file[64] = 4;
    assert!(load_bytes(&file).is_err());
}

proptest! {
    #[test]
    fn no_header_panics(
        changes in prop::collection::vec((0_usize..124, any::<u8>()), 0..24),
        len in 0_usize..=124,
    ) {
        let mut file = kernel();
        for (at, byte) in changes {
            file[at] = byte;
        }
        let _ = load_bytes(&file[..len]);
    }
}
