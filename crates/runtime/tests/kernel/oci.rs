//! The verbs of the OCI command line.

use crate::kit::{self, Fixture};
use runtime::{
    Error,
    config::Root,
    oci::{self, ContainerState},
};
use std::{fs, path::PathBuf};

fn bundle(fixture: &Fixture) -> oci::Create {
    let bundle = fixture.temp.path().join("bundle");
    fs::create_dir_all(&bundle).unwrap();
    let mut spec = fixture.plan.spec.clone();
    spec.root = Some(Root { path: "../lower".into(), readonly: Some(false) });
    fs::write(bundle.join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    oci::Create {
        id: "one".into(),
        bundle,
        console_socket: None,
        pid_file: Some(fixture.temp.path().join("pid")),
        userns_squash: kit::squashed(),
    }
}

#[test]
fn verbs_lead_a_container_through_its_life() {
    let fixture = Fixture::guest(&["write:/tmp/mark=started", "park"]);
    let root: PathBuf = fixture.temp.path().join("root");
    let create = bundle(&fixture);
    oci::create(&root, kit::program(), &create).unwrap();
    let state = oci::state(&root, "one").unwrap();
    assert_eq!(state.status, ContainerState::Created);
    assert_eq!(fs::read_to_string(create.pid_file.as_ref().unwrap()).unwrap(), state.pid.to_string());
    let mark = fixture.lower().join("tmp/mark");
    assert!(!mark.exists(), "it waits for its start");
    assert!(
        matches!(oci::create(&root, kit::program(), &create), Err(Error::Spec { .. })),
        "the id is taken"
    );

    oci::start(&root, "one").unwrap();
    kit::eventually("it runs", || mark.exists());
    assert_eq!(oci::state(&root, "one").unwrap().status, ContainerState::Running);
    assert!(oci::start(&root, "one").is_err());
    assert!(oci::delete(&root, "one", false).is_err(), "it runs");

    oci::kill(&root, "one", 9, false).unwrap();
    kit::eventually("it stops", || oci::state(&root, "one").unwrap().status == ContainerState::Stopped);
    oci::delete(&root, "one", false).unwrap();
    assert!(oci::state(&root, "one").is_err() && fs::read_dir(&root).unwrap().next().is_none());
}

#[test]
fn delete_by_force_ends_what_runs() {
    let fixture = Fixture::parked();
    let root = fixture.temp.path().join("root");
    oci::create(&root, kit::program(), &bundle(&fixture)).unwrap();
    oci::start(&root, "one").unwrap();
    oci::delete(&root, "one", true).unwrap();
    oci::delete(&root, "one", true).unwrap();
    assert!(fs::read_dir(&root).unwrap().next().is_none());
}

#[test]
fn bad_bundles_and_ids_are_refused() {
    let fixture = Fixture::guest(&[]);
    let root = fixture.temp.path().join("root");
    let good = bundle(&fixture);
    for id in ["", "..", "a/b"] {
        let create = oci::Create { id: id.into(), ..good.clone() };
        assert!(matches!(oci::create(&root, kit::program(), &create), Err(Error::Spec { .. })), "{id:?}");
    }
    fs::write(good.bundle.join("config.json"), "{").unwrap();
    let error = oci::create(&root, kit::program(), &good).unwrap_err().to_string();
    assert!(error.contains("bundle/config.json: EOF while parsing"), "{error}");
    assert!(!root.join("one").exists());
}
