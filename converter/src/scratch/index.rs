//! Names of all directories, sorted: a B+ tree in pages.
//!
//! A key is a directory's number, then a name, so the names of one directory lie side by side in the
//! order of their bytes. Pages are not merged when names go, only given up when they are empty.
//!
//! ```text
//! 0     2      4      8      12                              4096
//! | leaf | count | start | first | slots: u16 … |   free   | cells, from `start` on |
//! cell: key length u16, key, node or page u32, layer u16, 1 for a directory u8
//! ```
//! `first` is the page of what sorts before all cells of an inner page; a cell's page holds its key and
//! what sorts after that.

use std::cmp::Ordering;
use std::io;

use super::pages::{PAGE, Pages, Region};
use crate::attributes::NAME_MAX;
use crate::tree::NodeId;

const HEADER: usize = 12;
const SLOT: usize = 2;
const PARENT: usize = 4;
const KEY_MAX: usize = PARENT + NAME_MAX;
const VALUE: usize = 7;
const CELL_MAX: usize = 2 + KEY_MAX + VALUE;

// A page that was cut in half has room for one more cell.
const _: () = assert!(HEADER + 2 * (CELL_MAX + SLOT) < PAGE / 2);

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) node: NodeId,
    /// The last layer that had something at this name or below.
    pub(crate) layer: u16,
    pub(crate) is_directory: bool,
}

/// A directory's number and a name, in one.
#[derive(Clone, Copy)]
struct Key {
    bytes: [u8; KEY_MAX],
    len: usize,
}

impl Key {
    fn new(NodeId(parent): NodeId, name: &[u8]) -> Self {
        let mut bytes = [0; KEY_MAX];
        bytes[..PARENT].copy_from_slice(&parent.to_be_bytes());
        bytes[PARENT..PARENT + name.len()].copy_from_slice(name);
        Self { bytes, len: PARENT + name.len() }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut key = Self { bytes: [0; KEY_MAX], len: bytes.len() };
        key.bytes[..bytes.len()].copy_from_slice(bytes);
        key
    }

    fn parent(&self) -> NodeId {
        NodeId(u32::from_be_bytes(self.bytes[..PARENT].try_into().expect("four bytes")))
    }

    fn name(&self) -> &[u8] {
        &self.as_bytes()[PARENT..]
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// A page on the way down, and which of its children the way goes through; 0 is `first`.
#[derive(Clone, Copy, Debug)]
struct Step {
    page: u32,
    child: usize,
}

#[derive(Debug)]
pub(crate) struct Index {
    root: u32,
    /// How many pages were ever used.
    pages: u32,
    free: Vec<u32>,
}

impl Index {
    pub(crate) fn new(pages: &mut Pages<'_>) -> io::Result<Self> {
        Page(pages.get_mut(Region::Names, 0)?).clear(true);
        Ok(Self { root: 0, pages: 1, free: Vec::new() })
    }

    pub(crate) fn get(
        &self,
        pages: &mut Pages<'_>,
        parent: NodeId,
        name: &[u8],
    ) -> io::Result<Option<Child>> {
        let key = Key::new(parent, name);
        let mut number = self.root;
        loop {
            let page = View(pages.get(Region::Names, number)?);
            let found = page.find(&key);
            if page.is_leaf() {
                return Ok(found.ok().map(|slot| page.child(slot)));
            }
            number = page.page(after(found));
        }
    }

    /// Sets what a name leads to, and gives back what it led to before.
    pub(crate) fn put(
        &mut self,
        pages: &mut Pages<'_>,
        parent: NodeId,
        name: &[u8],
        child: Child,
    ) -> io::Result<Option<Child>> {
        let key = Key::new(parent, name);
        let (mut way, leaf) = self.descend(pages, &key)?;
        let mut page = Page(pages.get_mut(Region::Names, leaf)?);
        match page.view().find(&key) {
            Ok(slot) => {
                let old = page.view().child(slot);
                page.set_child(slot, child);
                Ok(Some(old))
            }
            Err(slot) => {
                let (mut number, mut slot, mut key, mut value) = (leaf, slot, key, encoded(child));
                // Upwards, as long as pages are full.
                while let Some((separator, right)) = self.insert(pages, number, slot, &key, value)? {
                    (key, value) = (separator, encoded_page(right));
                    match way.pop() {
                        Some(step) => (number, slot) = (step.page, step.child),
                        None => {
                            number = self.grow(pages)?;
                            slot = 0;
                        }
                    }
                }
                Ok(None)
            }
        }
    }

    pub(crate) fn remove(
        &mut self,
        pages: &mut Pages<'_>,
        parent: NodeId,
        name: &[u8],
    ) -> io::Result<Option<Child>> {
        let key = Key::new(parent, name);
        let (mut way, leaf) = self.descend(pages, &key)?;
        let mut page = Page(pages.get_mut(Region::Names, leaf)?);
        let Ok(slot) = page.view().find(&key) else { return Ok(None) };
        let old = page.view().child(slot);
        page.remove(slot);
        let mut empty = (page.view().count() == 0).then_some(leaf);
        while let Some(number) = empty {
            let Some(step) = way.pop() else {
                Page(pages.get_mut(Region::Names, number)?).clear(true);
                break;
            };
            self.free.push(number);
            let mut page = Page(pages.get_mut(Region::Names, step.page)?);
            empty = (!page.remove_page(step.child)).then_some(step.page);
        }
        Ok(Some(old))
    }

    /// Begins at a name, or at the first after it.
    pub(crate) fn cursor(&self, pages: &mut Pages<'_>, parent: NodeId, name: &[u8]) -> io::Result<Cursor> {
        let key = Key::new(parent, name);
        let (way, leaf) = self.descend(pages, &key)?;
        let slot = View(pages.get(Region::Names, leaf)?).find(&key);
        Ok(Cursor { way, leaf, slot: slot.unwrap_or_else(|slot| slot), key: Key::of(b"") })
    }

    /// How many pages it has ever needed.
    #[cfg(test)]
    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    fn descend(&self, pages: &mut Pages<'_>, key: &Key) -> io::Result<(Vec<Step>, u32)> {
        let mut way = Vec::new();
        let mut number = self.root;
        loop {
            let page = View(pages.get(Region::Names, number)?);
            if page.is_leaf() {
                return Ok((way, number));
            }
            let child = after(page.find(key));
            way.push(Step { page: number, child });
            number = page.page(child);
        }
    }

    /// Puts a cell into a page. If it was full, the upper part is in another page now: from which key on, and
    /// which page.
    fn insert(
        &mut self,
        pages: &mut Pages<'_>,
        number: u32,
        slot: usize,
        key: &Key,
        value: [u8; VALUE],
    ) -> io::Result<Option<(Key, u32)>> {
        let mut left = Page(pages.get_mut(Region::Names, number)?);
        if left.insert(slot, key, value) {
            return Ok(None);
        }
        let mut left_bytes = *left.0;
        let mut left = Page(&mut left_bytes);
        let is_leaf = left.view().is_leaf();
        let mut right_bytes = [0; PAGE];
        let mut right = Page(&mut right_bytes);
        right.clear(is_leaf);
        let count = left.view().count();
        // Names mostly come in order: then the left page stays full.
        let middle = if slot == count { count } else { left.view().middle() };
        for from in middle..count {
            let view = left.view();
            assert!(
                right.insert(from - middle, &Key::of(view.key(from)), view.value(from)),
                "it was in a page"
            );
        }
        for slot in (middle..count).rev() {
            left.remove(slot);
        }
        let fits = match slot > middle || slot == count {
            true => right.insert(slot - middle, key, value),
            false => left.insert(slot, key, value),
        };
        assert!(fits, "half a page has room for a cell");
        let separator = Key::of(right.view().key(0));
        if !is_leaf {
            // An inner page's first cell becomes what sorts before all others.
            right.lift_first();
        }
        let right_number = self.allocate();
        *pages.get_mut(Region::Names, number)? = left_bytes;
        *pages.get_mut(Region::Names, right_number)? = right_bytes;
        Ok(Some((separator, right_number)))
    }

    /// Sets a new root above the old one.
    fn grow(&mut self, pages: &mut Pages<'_>) -> io::Result<u32> {
        let number = self.allocate();
        let mut page = Page(pages.get_mut(Region::Names, number)?);
        page.clear(false);
        page.set_first(self.root);
        self.root = number;
        Ok(number)
    }

    fn allocate(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.pages += 1;
            self.pages - 1
        })
    }
}

/// Goes through names in order. Whatever changes names ends it.
pub(crate) struct Cursor {
    way: Vec<Step>,
    leaf: u32,
    slot: usize,
    key: Key,
}

impl Cursor {
    /// The next name: the directory it is in, and what it leads to. [`Self::name`] has the name itself.
    pub(crate) fn next(&mut self, pages: &mut Pages<'_>) -> io::Result<Option<(NodeId, Child)>> {
        loop {
            let page = View(pages.get(Region::Names, self.leaf)?);
            if self.slot < page.count() {
                let child = page.child(self.slot);
                self.key = Key::of(page.key(self.slot));
                self.slot += 1;
                return Ok(Some((self.key.parent(), child)));
            }
            if !self.next_leaf(pages)? {
                return Ok(None);
            }
        }
    }

    pub(crate) fn name(&self) -> &[u8] {
        self.key.name()
    }

    fn next_leaf(&mut self, pages: &mut Pages<'_>) -> io::Result<bool> {
        let mut number = loop {
            let Some(step) = self.way.pop() else { return Ok(false) };
            let page = View(pages.get(Region::Names, step.page)?);
            if step.child < page.count() {
                self.way.push(Step { child: step.child + 1, ..step });
                break page.page(step.child + 1);
            }
        };
        loop {
            let page = View(pages.get(Region::Names, number)?);
            if page.is_leaf() {
                (self.leaf, self.slot) = (number, 0);
                return Ok(true);
            }
            self.way.push(Step { page: number, child: 0 });
            number = page.page(0);
        }
    }
}

/// Which child of an inner page holds what was looked for.
fn after(found: Result<usize, usize>) -> usize {
    found.map_or_else(|slot| slot, |slot| slot + 1)
}

fn encoded(child: Child) -> [u8; VALUE] {
    let [a, b, c, d] = child.node.0.to_le_bytes();
    let [e, f] = child.layer.to_le_bytes();
    [a, b, c, d, e, f, child.is_directory.into()]
}

fn encoded_page(number: u32) -> [u8; VALUE] {
    let [a, b, c, d] = number.to_le_bytes();
    [a, b, c, d, 0, 0, 0]
}

/// A page to look at.
struct View<'a>(&'a [u8; PAGE]);

impl<'a> View<'a> {
    fn u16_at(&self, offset: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[offset], self.0[offset + 1]]))
    }

    fn is_leaf(&self) -> bool {
        self.0[0] != 0
    }

    fn count(&self) -> usize {
        self.u16_at(2)
    }

    /// Where the cells begin.
    fn start(&self) -> usize {
        self.u16_at(4)
    }

    fn cell(&self, slot: usize) -> usize {
        self.u16_at(HEADER + slot * SLOT)
    }

    fn cell_len(&self, slot: usize) -> usize {
        2 + self.u16_at(self.cell(slot)) + VALUE
    }

    fn key(&self, slot: usize) -> &'a [u8] {
        let cell = self.cell(slot);
        &self.0[cell + 2..][..self.u16_at(cell)]
    }

    fn value(&self, slot: usize) -> [u8; VALUE] {
        let cell = self.cell(slot);
        let value = &self.0[cell + 2 + self.u16_at(cell)..][..VALUE];
        value.try_into().expect("a value's length")
    }

    fn child(&self, slot: usize) -> Child {
        let [a, b, c, d, e, f, is_directory] = self.value(slot);
        Child {
            node: NodeId(u32::from_le_bytes([a, b, c, d])),
            layer: u16::from_le_bytes([e, f]),
            is_directory: is_directory != 0,
        }
    }

    /// A child of an inner page.
    fn page(&self, child: usize) -> u32 {
        match child.checked_sub(1) {
            None => u32::from_le_bytes(self.0[8..12].try_into().expect("four bytes")),
            Some(slot) => self.child(slot).node.0,
        }
    }

    /// The slot of a key, or where it belongs.
    fn find(&self, key: &Key) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle).cmp(key.as_bytes()) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// The slot that begins the upper half of the cells' bytes; never the first.
    fn middle(&self) -> usize {
        let half = (PAGE - self.start()) / 2;
        let mut sum = 0;
        let is_lower = |slot: &usize| {
            sum += self.cell_len(*slot);
            sum <= half
        };
        (0..self.count()).take_while(is_lower).count().max(1)
    }
}

/// A page to change.
struct Page<'a>(&'a mut [u8; PAGE]);

impl Page<'_> {
    fn view(&self) -> View<'_> {
        View(self.0)
    }

    fn clear(&mut self, is_leaf: bool) {
        self.0[..HEADER].fill(0);
        self.0[0] = is_leaf.into();
        self.set_u16(4, PAGE);
    }

    fn set_u16(&mut self, offset: usize, value: usize) {
        let value = u16::try_from(value).expect("a page is shorter than 64 KiB");
        self.0[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn set_first(&mut self, page: u32) {
        self.0[8..12].copy_from_slice(&page.to_le_bytes());
    }

    fn set_child(&mut self, slot: usize, child: Child) {
        let end = self.view().cell(slot) + self.view().cell_len(slot);
        self.0[end - VALUE..end].copy_from_slice(&encoded(child));
    }

    /// `false` if there is no room.
    fn insert(&mut self, slot: usize, key: &Key, value: [u8; VALUE]) -> bool {
        let (count, start) = (self.view().count(), self.view().start());
        let len = 2 + key.len + VALUE;
        let slots_end = HEADER + count * SLOT;
        if slots_end + SLOT + len > start {
            return false;
        }
        let cell = start - len;
        self.set_u16(cell, key.len);
        self.0[cell + 2..cell + 2 + key.len].copy_from_slice(key.as_bytes());
        self.0[start - VALUE..start].copy_from_slice(&value);
        let at = HEADER + slot * SLOT;
        self.0.copy_within(at..slots_end, at + SLOT);
        self.set_u16(at, cell);
        self.set_u16(2, count + 1);
        self.set_u16(4, cell);
        true
    }

    fn remove(&mut self, slot: usize) {
        let (count, start) = (self.view().count(), self.view().start());
        let (cell, len) = (self.view().cell(slot), self.view().cell_len(slot));
        self.0.copy_within(start..cell, start + len);
        let at = HEADER + slot * SLOT;
        self.0.copy_within(at + SLOT..HEADER + count * SLOT, at);
        for other in 0..count - 1 {
            let offset = self.view().cell(other);
            if offset < cell {
                self.set_u16(HEADER + other * SLOT, offset + len);
            }
        }
        self.set_u16(2, count - 1);
        self.set_u16(4, start + len);
    }

    /// The first cell's page becomes what sorts before all cells.
    fn lift_first(&mut self) {
        self.set_first(self.view().page(1));
        self.remove(0);
    }

    /// Takes a child from an inner page; `false` if it was the only one.
    fn remove_page(&mut self, child: usize) -> bool {
        match child {
            0 if self.view().count() == 0 => return false,
            0 => self.lift_first(),
            child => self.remove(child - 1),
        }
        true
    }
}
