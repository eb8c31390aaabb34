//! Jobs: services whose tasks are to end.

use crate::{load_hello, swarm};

#[test]
fn a_deploy_waits_for_all_of_a_job_and_lists_count_it_as_docker_does() {
    let lab = swarm(2, 1);
    load_hello(&lab, 1);
    let file = lab.dir().join("work.yml");
    let job = |mode: &str, more: &str| {
        format!(
            "{{image: rswarm/hello, command: [check, 'web:80'], deploy: {{mode: {mode}{more}, \
             restart_policy: {{condition: on-failure, delay: 200ms}}}}}}"
        )
    };
    let text = format!(
        "name: work\nservices:\n  web: {{image: rswarm/hello, command: [web]}}\n  some: {}\n  every: {}\n",
        job("replicated-job", ", replicas: 4"),
        job("global-job", "")
    );
    std::fs::write(&file, text).expect("a file");
    let said = lab.rswarm(1, &["deploy", "--yes", file.to_str().expect("a path")]).ok();
    let last = |service: &str| {
        said.lines().rfind(|line| line.starts_with(&format!("work_{service}: ")) && !line.contains(" ("))
    };
    assert_eq!((last("some"), last("every")), (Some("work_some: 4/4"), Some("work_every: 2/2")), "{said}");
    let list = lab.rswarm(1, &["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).ok();
    for line in ["work_some 0/4 (4/4 completed)", "work_every 0/0 (2/2 completed)", "work_web 1/1"] {
        assert!(list.lines().any(|l| l == line), "{list}");
    }
}
