//! The folders of the store: whose they are, and who may look.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// For the owner, and to look at for the group that may use hull.
const MODE: u32 = 0o750;

/// Files made in the folder belong to the folder's group (inode(7), `S_ISGID`).
const SET_GROUP: u32 = 0o2000;

/// Whoever is in it may look at images and pods.
const GROUP: &str = "hull";

/// Where the host keeps its groups (group(5)). Static programs cannot ask the name service.
const GROUPS: &str = "/etc/group";

/// Makes those folders that are missing. They belong to the group `hull`, if the host has one; whoever
/// changes that later is not overruled.
pub(crate) fn create(folders: impl Iterator<Item = PathBuf>) -> io::Result<()> {
    for folder in folders.filter(|folder| !folder.is_dir()) {
        DirBuilder::new().recursive(true).mode(MODE).create(&folder)?;
        // A store of root's, that is.
        if folder.metadata()?.uid() == 0
            && let Some(gid) = group_id(&fs::read_to_string(GROUPS).unwrap_or_default(), GROUP)
        {
            give(&folder, gid)?;
        }
    }
    Ok(())
}

fn give(folder: &Path, gid: u32) -> io::Result<()> {
    chown(folder, None, Some(gid))?;
    fs::set_permissions(folder, Permissions::from_mode(MODE | SET_GROUP))
}

/// `NAME:PASSWORD:GID:MEMBERS`
fn group_id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        fields.nth(1)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nhulls:x:3:\n\nhull:x:998:ann,bob\nhull2\n";
        assert_eq!(group_id(groups, "hull"), Some(998));
        assert_eq!(group_id(groups, "hulls"), Some(3));
        assert_eq!(group_id(groups, "hull2"), None);
        assert_eq!(group_id(groups, "hul"), None);
        assert_eq!(group_id("hull:x:many:", "hull"), None);
    }

    #[test]
    fn folders_show_nothing_to_the_world() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a/b");
        create([folder.clone()].into_iter()).unwrap();
        for folder in [folder.parent().unwrap(), &folder] {
            assert_eq!(folder.metadata().unwrap().mode() & 0o7, 0, "{}", folder.display());
        }
        if folder.metadata().unwrap().uid() == 0 {
            give(&folder, 54321).unwrap();
            fs::write(folder.join("file"), "").unwrap();
            assert_eq!(folder.join("file").metadata().unwrap().gid(), 54321);
        }
    }
}
