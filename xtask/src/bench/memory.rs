//! Reads what a VMM holds in memory besides its guest, from its `/proc/PID/smaps` (proc(5)).

/// Mappings from this size on are the guest's: its RAM, which is 256 MiB. Nothing of a VMM's own comes
/// near; a heap of glibc's for a thread is 64 MiB of address space in two mappings.
const GUEST_KIB: u64 = 128 << 10;

/// The guest's as well: an image that it sees as memory. Its pages are the page cache's.
const IMAGE_SUFFIX: &str = ".erofs";

/// The flag of madvise(2) with `MADV_HUGEPAGE`, which VMMs give to guest memory and to nothing else.
const HUGE_PAGE_ADVISED: &str = "hg";

/// Resident, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// All of the VMM's own.
    pub(super) own: u64,
    /// Of that, what no other process shares.
    pub(super) private: u64,
    /// Guest RAM and images.
    pub(super) guest: u64,
}

impl std::ops::AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.own += other.own;
        self.private += other.private;
        self.guest += other.guest;
    }
}

impl Memory {
    /// `None` if this is no smaps.
    pub(super) fn read(smaps: &str) -> Option<Self> {
        let mappings = mappings(smaps)?;
        let (mut sum, mut guest_end) = (Self::default(), None);
        for mapping in &mappings {
            if mapping.is_guest() || mapping.continues(guest_end) {
                sum.guest = sum.guest.checked_add(mapping.resident)?;
                guest_end = Some(mapping.end);
            } else {
                sum.own = sum.own.checked_add(mapping.resident)?;
                sum.private = sum.private.checked_add(mapping.private)?;
            }
        }
        (!mappings.is_empty()).then_some(sum)
    }
}

/// One mapping of a process; sizes in KiB.
#[derive(Debug, Default)]
struct Mapping<'a> {
    first: u64,
    end: u64,
    path: &'a str,
    resident: u64,
    private: u64,
    huge_page_advised: bool,
}

fn mappings(smaps: &str) -> Option<Vec<Mapping<'_>>> {
    let mut mappings = Vec::new();
    for line in smaps.lines() {
        let (name, value) = line.split_once(' ')?;
        match name.strip_suffix(':') {
            None => mappings.push(Mapping::read(line)?),
            Some(field) => mappings.last_mut()?.add(field, value.trim())?,
        }
    }
    Some(mappings)
}

impl<'a> Mapping<'a> {
    /// `7f0000000000-7f0010000000 rw-p 00000000 00:00 0    /path`
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (first, end) = fields.next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let path = fields.nth(4).unwrap_or_default().trim();
        Some(Self { first: address(first)?, end: address(end)?, path, ..Self::default() })
    }

    fn add(&mut self, field: &str, value: &str) -> Option<()> {
        let kib = || value.strip_suffix(" kB")?.trim().parse::<u64>().ok();
        match field {
            "Rss" => self.resident = kib()?,
            "Private_Clean" | "Private_Dirty" => self.private = self.private.checked_add(kib()?)?,
            "VmFlags" => self.huge_page_advised = value.split(' ').any(|flag| flag == HUGE_PAGE_ADVISED),
            _ => {}
        }
        Some(())
    }

    fn is_guest(&self) -> bool {
        let kib = self.end.saturating_sub(self.first) >> 10;
        self.huge_page_advised || kib >= GUEST_KIB || self.path.ends_with(IMAGE_SUFFIX)
    }

    /// A file that takes the place of some of the guest's RAM.
    fn continues(&self, guest_end: Option<u64>) -> bool {
        self.path.starts_with('/') && guest_end == Some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
55d000000000-55d000180000 r-xp 00001000 00:1a 77                         /dev/shm/b/hull-kvm
Size:               1536 kB
Rss:                 700 kB
Private_Clean:       600 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me sd
7f1000200000-7f1001200000 rw-p 00000000 00:00 0 
Rss:                2048 kB
Private_Clean:         0 kB
Private_Dirty:      2048 kB
THPeligible:           1
VmFlags: rd wr mr mw me nr hg
7f1001200000-7f1002200000 rw-p 00000000 00:1a 78                         /dev/shm/b/vmlinux
Rss:               13000 kB
Private_Dirty:      1000 kB
7f1002200000-7f1010200000 rw-p 00000000 00:00 0 
Rss:               40960 kB
7f2000000000-7f2000200000 r--s 00000000 00:1a 99                         /dev/shm/b/x.erofs
Rss:                  64 kB
Private_Clean:        64 kB
7f3000000000-7f3001000000 r--p 00000000 00:1a 78                         /dev/shm/b/vmlinux
Rss:                 100 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
Rss:                  20 kB
Private_Dirty:        20 kB
";

    #[test]
    fn the_guests_memory_is_not_the_vmms() {
        let guest = 2048 + 13000 + 40960 + 64;
        assert_eq!(Memory::read(SMAPS), Some(Memory { own: 820, private: 620, guest }));
    }

    #[test]
    fn noise_is_no_memory() {
        assert_eq!(Memory::read(""), None);
        assert_eq!(Memory::read("Rss: 3 kB\n"), None);
        assert_eq!(Memory::read("hello\n"), None);
        assert_eq!(Memory::read("1000-2000 rw-p 0 0:0 0 \nRss: many kB\n"), None);
    }
}
