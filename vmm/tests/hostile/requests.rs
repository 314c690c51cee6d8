//! Requests that are whole, and lie: each device's own rules, once each. What a lie costs is the request, the frame
//! or the packet, and never the device, which serves an honest driver right after.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::net::UnixStream;

use super::super::assembler::{Code, Guest};
use super::super::{BUFFER, NEXT, POWER_OFF_42, RINGS, USED_INDEX, WRITE, asked, kvm, virtio_with};
use super::{LIVE, NOWHERE, STATUS};
use hull_vmm::{Asked, Disk, Halt, Machine, Net, VmConfig, Vsock, VsockPort, open_tap};

const SECTOR: u64 = 512;
const SECTORS: u64 = 8;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const DONE: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// Where a request's data and its status are.
const DATA: u32 = BUFFER + 0x1000;
const ANSWER: u32 = BUFFER + 0x800;

fn run(asked: Asked) -> Halt {
    Machine::new(VmConfig::try_from(asked).unwrap()).unwrap().load().unwrap().boot().unwrap().wait()
}

fn disk_of(sectors: u64) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&vec![0x5a; usize::try_from(sectors * SECTOR).unwrap()]).unwrap();
    file
}

/// One request with its data, and what its last byte has to say; then an honest one.
struct Case {
    kind: u32,
    sector: u64,
    data: (u32, u32, u16),
    want: u8,
}

fn case(kind: u32, sector: u64, data: (u32, u32, u16), want: u8) -> Case {
    Case { kind, sector, data, want }
}

#[track_caller]
fn check_disk(rule: &str, file: File, read_only: bool, contents: &[u8], case: &Case) {
    if !kvm() {
        return;
    }
    let code = virtio_with(0, 0, RINGS)
        .ring(0)
        .expect(ANSWER, case.want.into())
        .expect(USED_INDEX, 1 << 16)
        .add16(RINGS + 0x1002, 1)
        .ring(0)
        // A flush, which any disk takes.
        .expect(ANSWER + 4, DONE.into())
        .expect(STATUS, LIVE)
        .power_off(42);
    let mut guest = Guest::new(code);
    let head = |kind: u32, sector: u64| [&u64::from(kind).to_le_bytes()[..], &sector.to_le_bytes()].concat();
    guest.data(BUFFER, &head(case.kind, case.sector));
    guest.data(BUFFER + 0x100, &head(FLUSH, 0));
    guest.data(ANSWER, &[0xff, 0, 0, 0, 0xff]);
    guest.data(DATA, contents);
    let (at, len, flags) = case.data;
    guest.descriptor(RINGS, 0, (BUFFER, 16, NEXT, 1));
    guest.descriptor(RINGS, 1, (at, len, flags | NEXT, 2));
    guest.descriptor(RINGS, 2, (ANSWER, 1, WRITE, 0));
    guest.descriptor(RINGS, 3, (BUFFER + 0x100, 16, NEXT, 4));
    guest.descriptor(RINGS, 4, (ANSWER + 4, 1, WRITE, 0));
    // The second is there already, and is made available later.
    guest.data(RINGS + 0x1000, &[0, 0, 1, 0, 0, 0, 3, 0]);
    assert_eq!(run(Asked { disks: vec![Disk { file, read_only }], ..asked(&guest) }), POWER_OFF_42, "{rule}");
}

#[test]
fn a_disk_gives_and_takes_its_own_sectors_only() {
    let read = |sector, len, want| case(IN, sector, (DATA, len, WRITE), want);
    let write = |sector, len, want| case(OUT, sector, (DATA, len, 0), want);
    for (rule, case) in [
        ("the last sector", read(7, 512, DONE)),
        ("behind the end", read(8, 512, IO_ERROR)),
        ("across the end", read(7, 1024, IO_ERROR)),
        ("an offset that wraps", read(u64::MAX, 512, IO_ERROR)),
        ("an offset that wraps as bytes", read(u64::MAX / 512 + 1, 512, IO_ERROR)),
        ("half a sector", read(0, 256, IO_ERROR)),
        ("more than a request may", read(0, 65 << 20, IO_ERROR)),
        ("to where no RAM is", case(IN, 0, (NOWHERE, 512, WRITE), IO_ERROR)),
        ("written behind the end", write(8, 512, IO_ERROR)),
        ("written across the end", write(7, 1024, IO_ERROR)),
        ("written at an offset that wraps", write(u64::MAX, 512, IO_ERROR)),
        ("an id without room", case(GET_ID, 0, (DATA, 19, WRITE), IO_ERROR)),
        ("what does not exist", case(u32::MAX, 0, (DATA, 512, WRITE), UNSUPPORTED)),
    ] {
        check_disk(rule, disk_of(SECTORS), false, &[1; 4096], &case);
    }
}

#[test]
fn a_read_only_disk_is_never_changed() {
    for kind in [OUT, DISCARD, WRITE_ZEROES] {
        let mut file = disk_of(SECTORS);
        let len = if kind == OUT { 512 } else { 16 };
        let case = case(kind, 0, (DATA, len, 0), IO_ERROR);
        // As an extent: sector 0, one sector.
        let extent = [&[0; 8][..], &1_u64.to_le_bytes()].concat();
        check_disk("a read-only disk", file.try_clone().unwrap(), true, &extent, &case);
        let mut contents = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut contents).unwrap();
        assert!(contents.iter().all(|byte| *byte == 0x5a), "{kind}");
    }
}

#[test]
fn extents_that_overflow_are_an_error() {
    let extent = |sector: u64, count: u32, flags: u32| {
        [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
    };
    for kind in [DISCARD, WRITE_ZEROES] {
        for (rule, extent, want) in [
            ("all of it", extent(0, 8, 0), DONE),
            ("behind the end", extent(8, 1, 0), IO_ERROR),
            ("across the end", extent(7, 2, 0), IO_ERROR),
            ("an end that wraps", extent(u64::MAX, 2, 0), IO_ERROR),
            ("more than a request may", extent(0, u32::MAX, 0), IO_ERROR),
            ("an unknown flag", extent(0, 1, 2), UNSUPPORTED),
        ] {
            let case = case(kind, 0, (DATA, 16, 0), want);
            check_disk(rule, disk_of(SECTORS), false, &extent, &case);
        }
    }
}

/// A backing file that somebody has cut, and a host that has no space.
#[test]
fn a_host_that_fails_is_an_error_of_the_request() {
    let file = disk_of(SECTORS);
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(SECTORS * SECTOR).unwrap();
    check_disk("holes", sparse, false, &[], &case(IN, 0, (DATA, 4096, WRITE), DONE));
    if !kvm() {
        return;
    }
    // Cut once the machine has seen its size.
    let code =
        virtio_with(0, 0, RINGS).ring(0).expect(ANSWER, IO_ERROR.into()).expect(STATUS, LIVE).power_off(42);
    let mut guest = Guest::new(code);
    guest.data(BUFFER, &[&u64::from(IN).to_le_bytes()[..], &4_u64.to_le_bytes()].concat());
    guest.data(ANSWER, &[0xff]);
    guest.descriptor(RINGS, 0, (BUFFER, 16, NEXT, 1));
    guest.descriptor(RINGS, 1, (DATA, 512, NEXT | WRITE, 2));
    guest.descriptor(RINGS, 2, (ANSWER, 1, WRITE, 0));
    guest.available(RINGS, &[0]);
    let disk = Disk { file: file.try_clone().unwrap(), read_only: false };
    let config = VmConfig::try_from(Asked { disks: vec![disk], ..asked(&guest) }).unwrap();
    let machine = Machine::new(config).unwrap().load().unwrap();
    file.set_len(4 * SECTOR).unwrap();
    assert_eq!(machine.boot().unwrap().wait(), POWER_OFF_42);
}

/// What a driver of the network device takes: the tap's offloads, and its own checksums and splitting.
const OFFLOADS: u32 = 0x182 | 1 | (1 << 11) | (1 << 12);

/// Sends headers with a frame of `len` bytes each, and then an honest frame.
fn send(heads: &[([u8; 12], u32)]) -> Halt {
    let count = u16::try_from(heads.len()).unwrap() + 1;
    let code = virtio_with(OFFLOADS, 1, RINGS)
        .ring(1)
        .expect(USED_INDEX, u32::from(count) << 16)
        .expect(STATUS, LIVE)
        .power_off(42);
    let mut guest = Guest::new(code);
    let honest = ([0; 12], 60);
    for (index, (head, len)) in (0_u16..).zip(heads.iter().chain([&honest])) {
        let at = BUFFER + u32::from(index) * 0x1000;
        guest.data(at, head);
        guest.descriptor(RINGS, index, (at, 12 + len, 0, 0));
    }
    let posted: Vec<u16> = (0..count).collect();
    guest.available(RINGS, &posted);
    let net = Net { tap: open_tap("hull%d").unwrap(), mac: [2, 0, 0, 0, 0, 1], mtu: Some(1500) };
    run(Asked { net: vec![net], ..asked(&guest) })
}

#[test]
fn frames_that_lie_cost_themselves() {
    if !kvm() {
        return;
    }
    let head = |flags: u8, gso: u8, hdr_len: u8, gso_size: u16, start: u16, offset: u16| {
        let [size, start, offset] = [gso_size, start, offset].map(u16::to_le_bytes);
        [flags, gso, hdr_len, 0, size[0], size[1], start[0], start[1], offset[0], offset[1], 0, 0]
    };
    // A runt, a jumbo, checksums outside, segments of nothing, of too little, of no known kind, without checksum.
    let lies = [
        (head(0, 0, 0, 0, 0, 0), 13),
        (head(0, 0, 0, 0, 0, 0), 3000),
        (head(1, 0, 0, 0, 0xffff, 0xffff), 60),
        (head(1, 1, 54, 0, 34, 16), 3000),
        (head(1, 1, 54, 1, 34, 16), 3000),
        (head(1, 0x7f, 54, 1448, 34, 16), 3000),
        (head(0, 1, 54, 1448, 34, 16), 3000),
    ];
    assert_eq!(send(&lies), POWER_OFF_42);
    // The longest there is, and no frame at all behind a header.
    assert_eq!(send(&[(head(1, 1, 54, 1448, 34, 16), 0x2_0000), (head(0, 0, 0, 0, 0, 0), 0)]), POWER_OFF_42);
}

const GUEST_PORT: u32 = 77;
const PORT: u32 = 1024;
const REQUEST: u16 = 1;
const RST: u16 = 3;
const RW: u16 = 5;
const CREDIT_REQUEST: u16 = 7;

fn packet(cids: (u64, u64), port: u32, len: u32, kind: u16, op: u16) -> Vec<u8> {
    let mut packet = [cids.0.to_le_bytes(), cids.1.to_le_bytes()].concat();
    [GUEST_PORT, port, len].iter().for_each(|word| packet.extend(word.to_le_bytes()));
    packet.extend(kind.to_le_bytes());
    packet.extend(op.to_le_bytes());
    packet.resize(44, 0);
    packet
}

fn with_vsock(guest: &Guest) -> (Asked, UnixStream) {
    let (stream, host) = UnixStream::pair().unwrap();
    let vsock = Vsock { ports: vec![VsockPort { port: PORT, stream }] };
    (Asked { vsock: Some(vsock), ..asked(guest) }, host)
}

#[test]
fn packets_that_lie_reach_nobody() {
    if !kvm() {
        return;
    }
    let honest = (hull_vmm::GUEST_CID, hull_vmm::HOST_CID);
    let lies = [
        packet((4, 2), PORT, 0, 1, REQUEST),
        packet((3, 7), PORT, 0, 1, REQUEST),
        packet(honest, 7, 0, 1, REQUEST),
        packet(honest, PORT, 0, 2, REQUEST),
        packet(honest, PORT, 0, 1, RW),
        packet(honest, PORT, u32::MAX, 1, REQUEST),
        packet(honest, PORT, 0, 1, 0xffff),
    ];
    let code =
        virtio_with(0, 1, RINGS).ring(1).expect(USED_INDEX, 7 << 16).expect(STATUS, LIVE).power_off(42);
    let mut guest = Guest::new(code);
    for (index, packet) in (0_u16..).zip(&lies) {
        let at = BUFFER + u32::from(index) * 0x100;
        guest.data(at, packet);
        guest.descriptor(RINGS, index, (at, 44, 0, 0));
    }
    guest.available(RINGS, &[0, 1, 2, 3, 4, 5, 6]);
    let (asked, mut host) = with_vsock(&guest);
    assert_eq!(run(asked), POWER_OFF_42);
    let mut heard = Vec::new();
    host.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, []);
}

/// Thousands of packets of one kind, with nobody to take the answers: the guest may lose its device, and
/// the host holds no more than before.
#[test]
fn floods_of_packets_are_bounded() {
    if !kvm() {
        return;
    }
    let honest = (hull_vmm::GUEST_CID, hull_vmm::HOST_CID);
    for op in [REQUEST, RST, RW, CREDIT_REQUEST] {
        let once = Code::new().add(BUFFER + 16, 1).add16(RINGS + 0x1002, 1).ring(1);
        let code = virtio_with(0, 1, RINGS).repeat(5000, once).store(STATUS, 0).expect(STATUS, 0);
        let mut guest = Guest::new(code.power_off(42));
        guest.data(BUFFER, &packet(honest, PORT, 0, 1, op));
        guest.descriptor(RINGS, 0, (BUFFER, 44, 0, 0));
        let (asked, _host) = with_vsock(&guest);
        let before = resident_kib();
        assert_eq!(run(asked), POWER_OFF_42, "{op}");
        // The guest's own pages are gone with its machine.
        assert!(resident_kib() < before + 16 * 1024, "{op}: {before} KiB before, {} after", resident_kib());
    }
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
