//! The index against a map of the standard library, with hardly a page in memory.
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Child, Index, PAGE, Pages, Region, Tail, Tails};
use crate::tree::NodeId;

type Model = BTreeMap<(u32, Vec<u8>), Child>;

fn child(number: u32) -> Child {
    Child { node: NodeId(number), layer: (number % 7) as u16, is_directory: number.is_multiple_of(2) }
}

/// From one name on, in both; all of them if it is the first.
fn assert_same(index: &Index, pages: &mut Pages<'_>, model: &Model, parent: u32, name: &[u8]) {
    let mut cursor = index.cursor(pages, NodeId(parent), name).unwrap();
    for ((parent, name), child) in model.range((parent, name.to_vec())..) {
        assert_eq!(cursor.next(pages).unwrap(), Some((NodeId(*parent), *child)));
        assert_eq!(cursor.name(), name);
    }
    assert_eq!(cursor.next(pages).unwrap(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Put(u32, Vec<u8>),
    Remove(u32, Vec<u8>),
    /// A run of names, as archives mostly have them: up, or down.
    Run(u32, u16, bool),
    RemoveRun(u32, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![
        proptest::collection::vec(prop::sample::select(b"ab".to_vec()), 1..4),
        proptest::collection::vec(any::<u8>(), 1..=255),
    ];
    let parent = 0..4_u32;
    prop_oneof![
        (parent.clone(), name.clone()).prop_map(|(parent, name)| Step::Put(parent, name)),
        (parent.clone(), name).prop_map(|(parent, name)| Step::Remove(parent, name)),
        (parent.clone(), 1..400_u16, any::<bool>()).prop_map(|(parent, n, up)| Step::Run(parent, n, up)),
        (parent, 1..400_u16).prop_map(|(parent, n)| Step::RemoveRun(parent, n)),
    ]
}

fn run_name(number: u16) -> Vec<u8> {
    format!("a-file-of-a-run-{number:05}").into_bytes()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_index_is_a_sorted_map(steps in proptest::collection::vec(step(), 1..40)) {
        let file = tempfile::tempfile().unwrap();
        let pages = &mut Pages::with_cache(&file, 2);
        let mut index = Index::new(pages).unwrap();
        let mut model = Model::new();
        let mut number = 0;
        let put = |index: &mut Index, pages: &mut Pages<'_>, model: &mut Model, number, parent, name: Vec<u8>| {
            let old = index.put(pages, NodeId(parent), &name, child(number)).unwrap();
            assert_eq!(old, model.insert((parent, name), child(number)));
        };
        let remove = |index: &mut Index, pages: &mut Pages<'_>, model: &mut Model, parent, name: Vec<u8>| {
            let old = index.remove(pages, NodeId(parent), &name).unwrap();
            assert_eq!(old, model.remove(&(parent, name)));
        };
        for step in steps {
            number += 1;
            match step {
                Step::Put(parent, name) => put(&mut index, pages, &mut model, number, parent, name),
                Step::Remove(parent, name) => remove(&mut index, pages, &mut model, parent, name),
                Step::Run(parent, count, up) => for n in 0..count {
                    let n = if up { n } else { count - n };
                    put(&mut index, pages, &mut model, number, parent, run_name(n));
                },
                Step::RemoveRun(parent, count) => for n in 0..count {
                    remove(&mut index, pages, &mut model, parent, run_name(n));
                },
            }
            if let Some((parent, name)) = model.keys().nth(model.len() / 2) {
                assert_same(&index, pages, &model, *parent, name);
                let got = index.get(pages, NodeId(*parent), name).unwrap();
                assert_eq!(got, model.get(&(*parent, name.clone())).copied());
            }
        }
        assert_same(&index, pages, &model, 0, b"");
    }
}

#[test]
fn names_in_order_fill_their_pages() {
    let file = tempfile::tempfile().unwrap();
    let pages = &mut Pages::with_cache(&file, 8);
    let mut index = Index::new(pages).unwrap();
    for number in 0..10_000 {
        index.put(pages, NodeId(1), &run_name(number), child(1)).unwrap();
    }
    // 36 bytes each, of 4084.
    assert!(index.pages() < 10_000 / 110 + 3, "{}", index.pages());
    for number in 0..10_000 {
        index.remove(pages, NodeId(1), &run_name(number)).unwrap();
    }
    let used = index.pages();
    for number in 0..10_000 {
        index.put(pages, NodeId(1), &run_name(number), child(1)).unwrap();
    }
    assert!(index.pages() <= used + 1, "pages that were given up are used again");
}

#[test]
fn bytes_cross_pages_and_come_back_from_disk() {
    let file = tempfile::tempfile().unwrap();
    let mut pages = Pages::with_cache(&file, 2);
    let long: Vec<u8> = (0..5 * PAGE).map(|n| (n % 251) as u8).collect();
    pages.write(Region::Bytes, 100, &long).unwrap();
    pages.write(Region::Freed, 0, b"other").unwrap();
    let mut got = vec![0; long.len()];
    pages.read(Region::Bytes, 100, &mut got).unwrap();
    assert_eq!(got, long);
    let mut never_written = [1; 10];
    pages.read(Region::Nodes, 1 << 20, &mut never_written).unwrap();
    assert_eq!(never_written, [0; 10]);
    assert!(pages.get(Region::Names, 1 << 20).is_err(), "a region has an end");
}

#[test]
fn tails_are_read_in_any_order() {
    let file = tempfile::tempfile().unwrap();
    let mut tails = Tails::new(&file);
    let content = |n: usize| vec![n as u8; 1 + n * 7 % 4000];
    let places: Vec<_> = (0..500)
        .map(|n| {
            let start = tails.position();
            tails.append(&content(n)).unwrap();
            tails.append_zeros(n as u64 % 5).unwrap();
            Tail { start, size: content(n).len() as u64 }
        })
        .collect();
    let mut reader = tails.into_reader().unwrap();
    for n in (0..500).chain((0..500).rev()).chain([7, 400, 8]) {
        assert_eq!(reader.get(places[n]).unwrap(), content(n));
    }
}
