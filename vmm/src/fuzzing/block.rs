//! The disk, over RAM and descriptors that a guest fills as it likes.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::file;
use super::input::Input;
use super::queues::Driver;
use crate::device::limit::Limits;
use crate::device::virtio::block::{Backend, Block};
use crate::device::virtio::queue::Rings;
use crate::device::virtio::{Device, Wake};

const SECTORS: usize = 8;
const SECTOR: usize = 512;
/// Behind the disk's end, in the same file: no guest may ever change it.
const FENCE: [u8; SECTOR] = [0xfe; SECTOR];
/// Where an honest request's head lies.
const HEAD: u64 = 0xf000;

/// Requests, good and hostile. The first byte says whether the disk is read-only.
pub fn block(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let read_only = input.flag();
    let contents = [[7; SECTORS * SECTOR].as_slice(), &FENCE].concat();
    let disk = file(&contents);
    let backend = Backend::new(disk.try_clone().unwrap(), SECTORS as u64, read_only, 0);
    let mut block = Block::new(backend, Limits::default());
    let mut driver = Driver::new(&[16]);
    while let Some(action) = input.next() {
        match action {
            0..0x80 => driver.act(action, &mut input),
            0x80..0xe0 => request(&mut driver, &mut input),
            _ => serve(&mut block, &mut driver, action),
        }
    }
    let mut after = vec![0; contents.len()];
    disk.read_exact_at(&mut after, 0).expect("the file keeps its length");
    assert_eq!(disk.metadata().unwrap().len(), contents.len() as u64, "the file keeps its length");
    assert_eq!(after[SECTORS * SECTOR..], FENCE, "behind the end of the disk");
    assert!(!read_only || after == contents, "a read-only disk has changed");
}

/// A chain that looks like a request: head, data, status.
fn request(driver: &mut Driver, input: &mut Input<'_>) {
    let sector = if input.flag() { u64::from(input.byte() % 12) } else { input.u64() };
    driver.put(HEAD, u32::from(input.byte() % 16));
    driver.put(HEAD + 8, sector);
    let writable = u16::from(input.flag()) * 2;
    let len = if input.flag() { u32::from(input.byte() % 10) * 512 } else { input.len() };
    let data = (input.address(), len, 1 | writable, 2);
    for (index, descriptor) in (0..).zip([(HEAD, 16, 1, 1), data, (HEAD + 0x40, 1, 2, 0)]) {
        driver.descriptor(0x1000, index, descriptor);
    }
    driver.post(0, 0);
}

fn serve(block: &mut Block, driver: &mut Driver, action: u8) {
    let why = [Wake::Queue(0), Wake::Again, Wake::Last][usize::from(action % 3)];
    let ram = Arc::clone(&driver.ram);
    let mut rings = Rings::new(&ram, &mut driver.queues);
    if block.serve(why, &mut rings).is_err() {
        block.reset();
    }
    let _ = rings.wants_interrupt(); // Refusing is right; panicking is not.
}
