//! What goes into RAM before the guest runs, from files and words of any shape; and the CPUID it gets.

use std::collections::BTreeSet;

use kvm_bindings::kvm_cpuid_entry2;
use vm_memory::{Bytes, GuestAddress};

use super::input::Input;
use super::{RAM_SIZE, file, ram};
use crate::boot::cmdline::{self, MmioDevice};
use crate::boot::initramfs::{Archive, InitramfsFile};
use crate::boot::{self, elf};
use crate::layout::{
    CMDLINE, DEVICES_MAX, HIGH_RAM, MMIO_GAP, MP_TABLE, RAM_MIB_MAX, RAM_MIB_MIN, Region, VCPUS_MAX,
    ram_regions, virtio_window,
};
use crate::memory::GuestRam;
use crate::vcpu::cpuid::{Vcpu, tailor};

/// RAM for the kernel: little, so that much does not fit.
const KERNEL_RAM: u64 = HIGH_RAM + RAM_SIZE;

/// A kernel file.
pub fn kernel(bytes: &[u8]) {
    let ram = GuestRam::new(&[Region { first: 0, size: KERNEL_RAM }]).unwrap();
    if let Ok(kernel) = elf::load(&ram, &file(bytes), KERNEL_RAM) {
        assert!(HIGH_RAM <= kernel.entry && kernel.entry < kernel.end && kernel.end <= KERNEL_RAM);
        let mut low = vec![1; usize::try_from(HIGH_RAM).unwrap()];
        ram.memory().read_slice(&mut low, GuestAddress(0)).unwrap();
        assert!(low.iter().all(|byte| *byte == 0), "a kernel in the boot data's place");
    }
}

/// Files of an initramfs: a mode, a path up to a NUL, and contents each.
pub fn initramfs(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut files = Vec::new();
    while let Some(len) = input.next() {
        let path = String::from_utf8_lossy(input.bytes(usize::from(len % 32))).into_owned();
        let mode = u32::from(input.u16());
        let size = usize::from(input.byte());
        files.push(InitramfsFile { path, mode, file: file(input.bytes(size)) });
    }
    let Ok(archive) = Archive::plan(&files) else { return };
    let ram = ram();
    let first = 0x1000;
    let fits = archive.size() <= RAM_SIZE - first;
    assert!(!fits || archive.write(&ram, first).is_ok(), "what fits is written");
    if fits {
        let mut bytes = vec![0; usize::try_from(archive.size()).unwrap()];
        ram.memory().read_slice(&mut bytes, GuestAddress(first)).unwrap();
        check_archive(&bytes);
    }
}

/// Reads it as the kernel does (init/initramfs.c): every parent comes first, no path leads out, and the
/// trailer comes last.
fn check_archive(bytes: &[u8]) {
    let mut at = 0;
    let mut directories = BTreeSet::from([String::new()]);
    loop {
        let field = |index: usize| {
            let from = at + 6 + index * 8;
            usize::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
        };
        assert_eq!(&bytes[at..at + 6], b"070701");
        let name = std::str::from_utf8(&bytes[at + 110..at + 110 + field(11) - 1]).unwrap();
        let contents = (at + 110 + field(11)).next_multiple_of(4);
        let next = (contents + field(6)).next_multiple_of(4);
        if name == "TRAILER!!!" {
            assert_eq!(next, bytes.len(), "nothing comes behind the trailer");
            return;
        }
        assert!(name.split('/').all(|part| !matches!(part, "" | "." | "..")), "{name:?} leads out");
        let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
        assert!(directories.contains(parent), "{name:?} comes before its parent");
        if field(1) & 0o170_000 == 0o040_000 {
            directories.insert(name.to_owned());
        }
        at = next;
    }
}

/// The caller's words for the command line; the first byte says how many devices there are.
pub fn command_line(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (serial, count) = (input.flag(), usize::from(input.byte()) % (DEVICES_MAX + 1));
    let device = |index| MmioDevice { window: virtio_window(index), pin: 1 };
    let devices: Vec<_> = (0..count).map(device).collect();
    let words = String::from_utf8_lossy(input.bytes(usize::MAX)).into_owned();
    let line = cmdline::build(serial, &devices, &words);
    assert!(line.ends_with(&words), "the caller's words win");
    if let Ok(line) = cmdline::nul_terminated(&line) {
        assert!(line.len() as u64 <= CMDLINE.size);
        assert_eq!(line.iter().position(|byte| *byte == 0), Some(line.len() - 1));
    }
}

/// The zero page and the MP table for any size of machine.
pub fn boot_tables(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mib = RAM_MIB_MIN + input.u32() % (RAM_MIB_MAX - RAM_MIB_MIN + 1);
    let vcpus = 1 + input.byte() % VCPUS_MAX;
    // A pin for each device and one for the serial port.
    let pins: Vec<u8> = (1..=input.byte() % (DEVICES_MAX as u8 + 2)).collect();
    let count = pins.last().map_or(1, |last| last + 1);
    let table = boot::mptable::table(vcpus, &pins, count);
    assert!(table.len() as u64 <= MP_TABLE.size);
    assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);

    let regions = ram_regions(mib);
    assert_eq!(regions.iter().map(|region| region.size).sum::<u64>(), u64::from(mib) << 20);
    let initramfs = input.flag().then(|| Region { first: input.u32().into(), size: input.u32().into() });
    let page = boot::params::zero_page(&regions, usize::from(input.u16()), initramfs);
    let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
    let mut end = 0;
    for entry in (0..usize::from(page[0x1e8])).map(|index| 0x2d0 + index * 20) {
        let (first, size) = (word(entry), word(entry + 8));
        assert!(end <= first && 0 < size, "the map is in order, without overlaps or empty parts");
        end = first.checked_add(size).unwrap();
        assert!(end <= MMIO_GAP.first || MMIO_GAP.end() <= first, "no RAM in the gap");
    }
    assert_eq!(end, regions.iter().map(|region| region.end()).max().unwrap());
}

/// What KVM may say it supports: 20 bytes an entry, for vCPU and count as the first bytes say.
pub fn cpuid(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = 1 + input.byte() % VCPUS_MAX;
    let vcpu = Vcpu { id: input.byte() % count, count, tsc_deadline: input.flag() };
    let mut supported = Vec::new();
    while let Some(choice) = input.next() {
        let function = match choice % 3 {
            0 => u32::from(input.byte() % 0x28),
            1 => 0x8000_0000 | u32::from(input.byte() % 0x28),
            _ => input.u32(),
        };
        let index = u32::from(input.byte() % 4);
        let (eax, ebx, ecx, edx) = (input.u32(), input.u32(), input.u32(), input.u32());
        supported.push(kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() });
    }
    let mut topology = 0;
    for entry in tailor(&supported, vcpu) {
        check_entry(&entry, vcpu);
        topology += usize::from(entry.function == 0xb);
    }
    let wanted = supported.iter().any(|entry| entry.function == 0xb);
    assert_eq!(topology, if wanted { 3 } else { 0 }, "leaf 0xb is ours, whole or absent");
}

fn check_entry(entry: &kvm_cpuid_entry2, vcpu: Vcpu) {
    let (id, count) = (u32::from(vcpu.id), u32::from(vcpu.count));
    match entry.function {
        1 => {
            assert_eq!(entry.ecx & (1 << 5), 0, "VMX");
            assert_eq!(entry.ecx & ((1 << 2) | (1 << 15)), 0, "debug store, PDCM: a PMU");
            assert_eq!(entry.edx & (1 << 21), 0, "debug store");
            assert_eq!((entry.ebx >> 24, (entry.ebx >> 16) & 0xff), (id, count), "APIC id, threads");
        }
        0xa | 0x12 | 0x14 | 0x19 | 0x1c | 0x1f | 0x8000_000a | 0x8000_001b | 0x8000_0022 => {
            panic!("leaf {:#x} is no guest's", entry.function);
        }
        0x8000_0001 => {
            assert_eq!(entry.ecx & (1 << 2), 0, "SVM");
            assert_eq!(entry.ecx & ((1 << 10) | (1 << 23) | (1 << 24) | (1 << 28)), 0, "IBS, counters");
        }
        0xb => assert_eq!(entry.edx, id, "APIC id"),
        _ => (),
    }
}
