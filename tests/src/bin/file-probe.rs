//! Runs in a pod, in a directory that is a volume: does with files what real programs do, and says which of it did
//! not come out as on any local file system. The last line is `done`. The argument is how many files many are.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::fcntl::{FallocateFlags, FcntlArg, Flock, FlockArg, RenameFlags, fallocate, fcntl, renameat2};
use nix::unistd::{Whence, lseek64, mkfifo};
use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// A name and what it tries.
type Test = (&'static str, fn() -> io::Result<bool>);

fn main() {
    let tests: [Test; 14] = [
        ("an unlinked file stays open", unlinked),
        ("owners and modes are kept", owners),
        ("attributes are kept", attributes),
        ("a mapping is shared with the file", mapped),
        ("flock(2) excludes", flocked),
        ("fcntl(2) locks exclude", locked),
        ("rename replaces, exchanges and spares", renamed),
        ("holes stay holes", sparse),
        ("links are links", linked),
        ("appends do not overwrite", appended),
        ("times are set", timed),
        ("pipes are made", piped),
        ("a file without a name gets one", unnamed),
        ("many files are all there", many),
    ];
    for (name, test) in tests {
        match test() {
            Ok(true) => (),
            Ok(false) => println!("failed: {name}"),
            Err(why) => println!("failed: {name}: {why}"),
        }
    }
    println!("done");
}

fn create(name: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(name)
}

fn unlinked() -> io::Result<bool> {
    let mut file = create("unlinked")?;
    file.write_all(b"before")?;
    fs::remove_file("unlinked")?;
    file.write_all(b" and after")?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    let metadata = file.metadata()?;
    Ok(text == "before and after"
        && metadata.nlink() == 0
        && metadata.len() == 16
        && !Path::new("unlinked").exists())
}

fn owners() -> io::Result<bool> {
    drop(create("owned")?);
    chown("owned", Some(1234), Some(4321))?;
    fs::set_permissions("owned", fs::Permissions::from_mode(0o4751))?;
    let metadata = fs::metadata("owned")?;
    fs::create_dir("sticky")?;
    fs::set_permissions("sticky", fs::Permissions::from_mode(0o1777))?;
    Ok((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777) == (1234, 4321, 0o4751)
        && fs::metadata("sticky")?.mode() & 0o7777 == 0o1777)
}

fn attributes() -> io::Result<bool> {
    let file = create("attributed")?;
    fsetxattr(&file, "user.test", b"value", XattrFlags::empty())?;
    let mut value = [0; 16];
    let len = fgetxattr(&file, "user.test", &mut value[..])?;
    Ok(&value[..len] == b"value")
}

fn mapped() -> io::Result<bool> {
    let file = create("mapped")?;
    file.set_len(8192)?;
    file.write_all_at(b"written", 4096)?;
    let map = MmapRegion::<()>::from_file(FileOffset::new(file, 0), 8192).map_err(io::Error::other)?;
    let mut saw = [0; 7];
    map.get_slice(4096, 7).map_err(io::Error::other)?.copy_to(&mut saw[..]);
    map.get_slice(0, 15).map_err(io::Error::other)?.copy_from(b"through the map");
    let mut bytes = [0; 15];
    File::open("mapped")?.read_exact_at(&mut bytes, 0)?;
    Ok(&saw == b"written" && &bytes == b"through the map")
}

fn flocked() -> io::Result<bool> {
    drop(create("flocked")?);
    let first =
        Flock::lock(File::open("flocked")?, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| why)?;
    let second = Flock::lock(File::open("flocked")?, FlockArg::LockExclusiveNonblock);
    let refused = second.is_err();
    drop(first);
    Ok(refused && Flock::lock(File::open("flocked")?, FlockArg::LockExclusiveNonblock).is_ok())
}

fn locked() -> io::Result<bool> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 10,
        l_len: 10,
        l_pid: 0,
    };
    let (first, second) = (create("locked")?, OpenOptions::new().read(true).write(true).open("locked")?);
    // Of open files: one process could not contradict itself otherwise.
    fcntl(&first, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(fcntl(&second, FcntlArg::F_OFD_SETLK(&lock)).is_err())
}

fn renamed() -> io::Result<bool> {
    fs::write("one", "1")?;
    fs::write("two", "2")?;
    let here = nix::fcntl::AT_FDCWD;
    renameat2(here, "one", here, "two", RenameFlags::RENAME_EXCHANGE)?;
    let exchanged = fs::read_to_string("one")? == "2" && fs::read_to_string("two")? == "1";
    let spared = renameat2(here, "one", here, "two", RenameFlags::RENAME_NOREPLACE).is_err();
    fs::rename("one", "two")?;
    Ok(exchanged && spared && fs::read_to_string("two")? == "2" && !Path::new("one").exists())
}

fn sparse() -> io::Result<bool> {
    let file = create("sparse")?;
    file.write_all_at(b"end", (64 << 20) - 3)?;
    file.sync_all()?;
    let small = file.metadata()?.blocks() < 1024;
    let data = lseek64(&file, 0, Whence::SeekData)? > 0;
    fallocate(&file, FallocateFlags::empty(), 0, 1 << 20)?;
    let filled = file.metadata()?.blocks() >= 2048;
    fallocate(&file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20)?;
    Ok(small && data && filled && file.metadata()?.len() == 64 << 20)
}

fn linked() -> io::Result<bool> {
    fs::write("name", "text")?;
    fs::hard_link("name", "other")?;
    symlink("other", "soft")?;
    symlink("/nowhere", "dangling")?;
    let (one, other) = (fs::metadata("name")?, fs::metadata("other")?);
    fs::remove_file("name")?;
    Ok(one.ino() == other.ino()
        && one.nlink() == 2
        && fs::metadata("other")?.nlink() == 1
        && fs::read_to_string("soft")? == "text"
        && fs::read_link("dangling")? == Path::new("/nowhere"))
}

fn appended() -> io::Result<bool> {
    let open = || OpenOptions::new().append(true).create(true).open("appended");
    let (mut one, mut other) = (open()?, open()?);
    for _ in 0..50 {
        one.write_all(b"one\n")?;
        other.write_all(b"two\n")?;
    }
    Ok(fs::metadata("appended")?.len() == 400)
}

fn timed() -> io::Result<bool> {
    let file = create("timed")?;
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    file.set_modified(time)?;
    Ok(fs::metadata("timed")?.modified()? == time)
}

fn piped() -> io::Result<bool> {
    mkfifo("pipe", nix::sys::stat::Mode::S_IRWXU)?;
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("pipe")?;
    OpenOptions::new().write(true).open("pipe")?.write_all(b"word")?;
    let mut bytes = [0; 4];
    (&reader).read_exact(&mut bytes)?;
    Ok(&bytes == b"word")
}

fn unnamed() -> io::Result<bool> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_TMPFILE).open(".");
    match file {
        Ok(mut file) => {
            file.write_all(b"text")?;
            let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let here = nix::fcntl::AT_FDCWD;
            nix::unistd::linkat(here, from.as_str(), here, "named", nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW)?;
            Ok(fs::read_to_string("named")? == "text")
        }
        // Programs are used to file systems without them.
        Err(why) => Ok(why.raw_os_error() == Some(libc::EOPNOTSUPP)),
    }
}

fn many() -> io::Result<bool> {
    let count: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    fs::create_dir("many")?;
    for number in 0..count {
        fs::write(format!("many/{number}"), number.to_string())?;
    }
    let names: BTreeSet<_> =
        fs::read_dir("many")?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    let last = fs::read_to_string(format!("many/{}", count - 1))?;
    fs::remove_dir_all("many")?;
    Ok(names.len() == count && last == (count - 1).to_string() && !Path::new("many").exists())
}
