//! Transitions, locks and garbage, on real directories.

use super::*;
use crate::dir::{PodDir, Prepared};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> (Self, Pods) {
        let dir = std::env::temp_dir().join(format!("hull-pods-{}", PodId::random().unwrap()));
        let pods = Pods::open(&dir).unwrap();
        (Self(dir), pods)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn state(pods: &Pods, id: &PodId) -> Option<State> {
    pods.list().unwrap().into_iter().find(|found| found.id == *id).map(|found| found.state)
}

#[test]
fn a_pod_is_seen_in_every_state_of_its_life() {
    let (_scratch, pods) = Scratch::new();
    let id = PodId::random().unwrap();
    let pod = PodDir::create(&pods, id.clone()).unwrap();
    assert_eq!(state(&pods, &id), Some(State::Preparing));
    let pod = pod.commit().unwrap();
    assert_eq!(state(&pods, &id), Some(State::Prepared));
    let pod = pod.start().unwrap();
    assert_eq!(state(&pods, &id), Some(State::Running));
    drop(pod);
    assert_eq!(state(&pods, &id), Some(State::Exited));
    let marked = pods.mark(&pods.find(id.short()).unwrap()).unwrap().unwrap();
    assert_eq!(state(&pods, &id), Some(State::ExitedGarbage));
    pods.delete(&marked).unwrap();
    assert_eq!(state(&pods, &id), None);
}

#[test]
fn a_prepare_that_dies_is_aborted_and_collected() {
    let (_scratch, pods) = Scratch::new();
    let id = PodId::random().unwrap();
    drop(PodDir::create(&pods, id.clone()).unwrap());
    assert_eq!(state(&pods, &id), Some(State::AbortedPrepare));
    let marked = pods.mark(&pods.find(id.as_str()).unwrap()).unwrap().unwrap();
    pods.delete(&marked).unwrap();
    assert_eq!(state(&pods, &id), None);
}

#[test]
fn a_failed_prepare_leaves_nothing() {
    let (_scratch, pods) = Scratch::new();
    let pod = PodDir::create(&pods, PodId::random().unwrap()).unwrap();
    pod.write_json("pod", &"half a manifest").unwrap();
    pod.discard().unwrap();
    assert!(pods.list().unwrap().is_empty());
}

#[test]
fn one_pod_is_started_once() {
    let (_scratch, pods) = Scratch::new();
    let id = PodId::random().unwrap();
    drop(PodDir::create(&pods, id.clone()).unwrap().commit().unwrap());
    let first = PodDir::<Prepared>::open(&pods, id.clone()).unwrap();
    let second = PodDir::<Prepared>::open(&pods, id.clone()).unwrap_err();
    assert_eq!(*second.kind(), Kind::Locked);
    let first = first.start().unwrap();
    assert_eq!(*PodDir::<Prepared>::open(&pods, id).unwrap_err().kind(), Kind::Missing);
    drop(first);
}

#[test]
fn a_running_pod_is_neither_marked_nor_deleted() {
    let (_scratch, pods) = Scratch::new();
    let id = PodId::random().unwrap();
    let _running = PodDir::create(&pods, id.clone()).unwrap().commit().unwrap().start().unwrap();
    let found = pods.find(id.as_str()).unwrap();
    assert!(pods.mark(&found).unwrap().is_none());
    assert_eq!(*pods.delete(&found).unwrap_err().kind(), Kind::WrongState);
}

#[test]
fn a_pod_is_found_by_a_prefix_that_only_it_has() {
    let (_scratch, pods) = Scratch::new();
    let ids: Vec<PodId> = ["11111111-0000-4000-8000-000000000000", "12222222-0000-4000-8000-000000000000"]
        .into_iter()
        .map(|text| text.parse().unwrap())
        .collect();
    let _pods: Vec<_> = ids.iter().map(|id| PodDir::create(&pods, id.clone()).unwrap()).collect();
    assert_eq!(pods.find("12").unwrap().id, ids[1]);
    assert_eq!(*pods.find("1").unwrap_err().kind(), Kind::BadName);
    assert_eq!(*pods.find("").unwrap_err().kind(), Kind::BadName);
    assert_eq!(*pods.find("3").unwrap_err().kind(), Kind::Missing);
}

#[test]
fn what_is_no_pod_is_left_alone() {
    let (scratch, pods) = Scratch::new();
    fs::create_dir(scratch.0.join("run/lost+found")).unwrap();
    assert!(pods.list().unwrap().is_empty());
    assert!(scratch.0.join("run/lost+found").exists());
}

#[test]
fn a_young_embryo_belongs_to_its_maker() {
    let (scratch, pods) = Scratch::new();
    let id = PodId::random().unwrap();
    fs::create_dir(scratch.0.join("embryo").join(id.as_str())).unwrap();
    assert!(pods.mark(&pods.find(id.as_str()).unwrap()).unwrap().is_none());
}
