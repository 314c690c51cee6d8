//! Layers on layers, as changes to a tree.
use super::{Extent, Facts, New, NodeId, NodeKind, Refusal, Tree, TreePath, Trouble};
use crate::attributes::Attributes;
use crate::scratch::Pages;

enum Step {
    Directory(&'static str),
    File(&'static str, u64),
    Symlink(&'static str),
    HardLink(&'static str, &'static str),
    WhiteOut(&'static str),
    Opaque(&'static str),
    NextLayer,
}
use Step::{Directory, File, HardLink, NextLayer, Opaque, Symlink, WhiteOut};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn take(tree: &mut Tree<'_>, step: &Step) -> Result<(), Refusal> {
    let taken = match step {
        Directory(at) => {
            let attributes = Attributes { permissions: 0o700, ..Attributes::default() };
            tree.put(&path(at), New::Directory(Facts { attributes, xattrs: Vec::new() }))
        }
        File(at, size) => {
            let extent = Extent { start: size * 4096, size: *size };
            tree.put(&path(at), New::Other(NodeKind::File(extent), Facts::default()))
        }
        Symlink(at) => tree.put(&path(at), New::Symlink(b"x".into(), Facts::default())),
        HardLink(at, target) => tree.put(&path(at), New::HardLink(path(target))),
        WhiteOut(at) => tree.white_out(&path(at)),
        Opaque(at) => tree.white_out_inside(&path(at)),
        NextLayer => {
            tree.next_layer();
            Ok(())
        }
    };
    taken.map_err(|trouble| match trouble {
        Trouble::Refused(text) => text,
        Trouble::Disk(error) => panic!("{error}"),
    })
}

/// A tree of which hardly anything is in memory.
fn with_tree<R>(use_it: impl FnOnce(&mut Tree<'_>) -> R) -> R {
    let file = tempfile::tempfile().unwrap();
    use_it(&mut Tree::new(Pages::with_cache(&file, 2)).unwrap())
}

/// `a/` directory with attributes, `a//` implied, `a=3` file of three bytes, `a@` link; `#2` names.
fn shown(tree: &mut Tree<'_>, at: NodeId, prefix: &str, lines: &mut Vec<String>) {
    let mut cursor = tree.names_from(at).unwrap();
    while let Some((_, child)) = tree.next_name(&mut cursor).unwrap().filter(|(parent, _)| *parent == at) {
        let node = tree.node(child.node).unwrap();
        let name = format!("{prefix}{}", cursor.name().escape_ascii());
        let names = if node.names > 1 { format!("#{}", node.names) } else { String::new() };
        match &node.kind {
            NodeKind::Directory(_) => {
                let slashes = if node.attributes.permissions == 0o700 { "/" } else { "//" };
                lines.push(format!("{name}{slashes}"));
                shown(tree, child.node, &format!("{name}/"), lines);
            }
            NodeKind::File(extent) => lines.push(format!("{name}={}{names}", extent.size)),
            NodeKind::Symlink(_) => lines.push(format!("{name}@{names}")),
            _ => unreachable!("no such step"),
        }
    }
}

/// Takes the steps; `want` is the tree that results, `freed` the sizes of the files that are gone.
#[track_caller]
fn check(steps: &[Step], want: &str, freed: &[u64]) {
    with_tree(|tree| {
        for step in steps {
            take(tree, step).unwrap();
        }
        let mut lines = Vec::new();
        shown(tree, NodeId::ROOT, "", &mut lines);
        assert_eq!(lines.join(" "), want);
        let sizes = std::iter::from_fn(|| Some(tree.take_freed().unwrap()?.size));
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort_unstable();
        assert_eq!(sizes, freed);
    });
}

#[test]
fn missing_directories_are_implied() {
    check(&[File("a/b/c", 1)], "a// a/b// a/b/c=1", &[]);
    check(&[File("a/b", 1), Directory("a")], "a/ a/b=1", &[]);
    check(&[File("/./a//b/", 1)], "a// a/b=1", &[]);
}

#[test]
fn the_last_of_one_name_wins() {
    check(&[File("a", 1), File("a", 2)], "a=2", &[1]);
    check(&[File("a", 1), Directory("a")], "a/", &[1]);
    check(&[Directory("a"), File("a/b", 1), NextLayer, File("a", 2)], "a=2", &[1]);
    check(&[Directory("a"), File("a/b", 1), NextLayer, Directory("a")], "a/ a/b=1", &[]);
    check(&[Directory("a"), File("a/b", 1), NextLayer, Symlink("a")], "a@", &[1]);
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    check(&[File("a", 1), File("b", 2), NextLayer, WhiteOut("a")], "b=2", &[1]);
    check(&[File("a", 1), NextLayer, WhiteOut("a"), File("a", 2)], "a=2", &[1]);
    check(&[File("a", 1), NextLayer, File("a", 2), WhiteOut("a")], "a=2", &[1]);
    check(
        &[Directory("d"), File("d/a", 1), NextLayer, Directory("d"), File("d/b", 2), WhiteOut("d")],
        "d/ d/b=2",
        &[1],
    );
    check(&[Directory("d"), File("d/e/a", 1), NextLayer, WhiteOut("d")], "", &[1]);
    check(&[NextLayer, WhiteOut("no/such/thing")], "", &[]);
    // A link on the way is not followed, so there is nothing to remove.
    check(&[Directory("d"), File("d/a", 1), Symlink("s"), NextLayer, WhiteOut("s/a")], "d/ d/a=1 s@", &[]);
}

#[test]
fn opaque_directories_keep_what_their_own_layer_has() {
    let lower = || [Directory("d"), File("d/a", 1), Directory("d/e"), File("d/e/b", 2), NextLayer];
    let with = |steps: Vec<Step>| lower().into_iter().chain(steps).collect::<Vec<_>>();
    check(&with(vec![Opaque("d")]), "d/", &[1, 2]);
    check(&with(vec![Opaque("d"), File("d/e/c", 3)]), "d/ d/e// d/e/c=3", &[1, 2]);
    check(&with(vec![File("d/e/c", 3), Opaque("d")]), "d/ d/e/ d/e/c=3", &[1, 2]);
    check(&with(vec![Opaque("d"), File("d/c", 3), Opaque("d"), Opaque("")]), "d/ d/c=3", &[1, 2]);
    check(&with(vec![Directory("d"), Opaque("d"), NextLayer, Opaque("d"), Opaque("")]), "", &[1, 2]);
    check(&with(vec![Opaque("s")]), "d/ d/a=1 d/e/ d/e/b=2", &[]);
    check(&with(vec![Opaque("")]), "", &[1, 2]);
}

#[test]
fn hard_links_keep_a_file_until_its_last_name() {
    check(&[File("a", 1), HardLink("b", "a")], "a=1#2 b=1#2", &[]);
    check(&[File("a", 1), NextLayer, HardLink("b", "a"), WhiteOut("a")], "b=1", &[]);
    check(&[File("a", 1), HardLink("b", "a"), NextLayer, WhiteOut("a"), WhiteOut("b")], "", &[1]);
    check(&[File("a", 1), HardLink("a", "a")], "a=1", &[]);
    check(&[Symlink("a"), HardLink("b", "a")], "a@#2 b@#2", &[]);
    // The target lies in the directory that the link replaces.
    check(&[File("d/a", 1), HardLink("d", "d/a")], "d=1", &[]);
    // A link that the current layer made survives, though its file is from below.
    check(
        &[Directory("d"), File("a", 1), NextLayer, HardLink("d/b", "a"), Opaque("d")],
        "a=1#2 d/ d/b=1#2",
        &[],
    );
}

#[test]
fn links_on_the_way_are_replaced_if_lower_and_refused_if_not() {
    check(&[Symlink("a"), NextLayer, File("a/b", 1)], "a// a/b=1", &[]);
    check(&[File("a", 1), NextLayer, File("a/b", 2)], "a// a/b=2", &[1]);
    with_tree(|tree| {
        take(tree, &Symlink("a")).unwrap();
        assert!(take(tree, &File("a/b", 1)).unwrap_err().contains("symbolic link"));
        assert!(take(tree, &HardLink("c", "a/b")).unwrap_err().contains("not in the image"));
        assert!(take(tree, &WhiteOut("/")).unwrap_err().contains("root"));
    });
}

#[test]
fn a_path_leads_down_only() {
    for wrong in ["..", "a/..", "../a", "a/../b", "/../a"] {
        assert!(TreePath::parse(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert_eq!(path("..a/.b/c..").to_string(), "..a/.b/c..");
}

#[test]
fn a_tree_as_deep_as_a_path_is_long_can_vanish() {
    let deep: &'static str = Box::leak("a/".repeat(2047).into_boxed_str());
    check(&[File(deep, 1), NextLayer, WhiteOut("a")], "", &[1]);
}
