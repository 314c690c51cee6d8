//! Writes the lab's boot archive: cpio in the `newc` format (Linux
//! Documentation/driver-api/early-userspace/buffer-format.rst).

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that the kernel unpacks as it grows, uncompressed.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, (0, 0), &[]);
    }

    pub(crate) fn program(&mut self, name: &str, bytes: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), bytes);
    }

    pub(crate) fn character_device(&mut self, name: &str, number: (u32, u32)) {
        self.entry(name, CHARACTER_DEVICE, number, &[]);
    }

    /// The archive, closed.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a program of ours is below 4 GiB");
        let name_size = name.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        // Inode, mode, user, group, links, time, size, device of the file, device number, name
        // size, checksum (unused).
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_name_and_content_are_aligned() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.program("init", b"#!/x\n");
        let bytes = archive.finish();
        let folder = b"070701\
            00000001000041ed00000000000000000000000100000000\
            0000000000000000000000000000000000000000\
            0000000400000000dev\0";
        assert_eq!(&bytes[..folder.len()], folder);
        assert_eq!(folder.len() % 4, 2);
        let text = String::from_utf8_lossy(&bytes);
        let content = text.find("#!/x\n").unwrap();
        assert_eq!(content % 4, 0);
        let trailer = text.rfind("070701").unwrap();
        assert_eq!(trailer, (content + 5).next_multiple_of(4));
    }
}
