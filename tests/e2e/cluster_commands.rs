//! The real `docker` CLI against the front door of a fake swarm: parts of the oracle `docker_cli`.

#[expect(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "the kit of docker-api's tests, which stands alone there"
)]
#[path = "../../crates/docker-api/tests/fake/mod.rs"]
mod fake;

use fake::Door;
use std::future::Future;

pub(crate) fn refuse_without_a_swarm() {
    to_its_end(async {
        let door = Door::open().await;
        assert!(door.run(testkit::peer("docker"), &["version"]).await.ok().contains("Version:"));
        let info = door.run(testkit::peer("docker"), &["info"]).await.ok_with_warnings();
        assert!(info.contains("Swarm: inactive"), "{info}");
        for command in
            [&["node", "ls"][..], &["service", "ls"], &["secret", "ls"], &["stack", "ls"], &["swarm", "ca"]]
        {
            door.run(testkit::peer("docker"), command).await.fails(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
        );
        }
        door.run(testkit::peer("docker"), &["network", "create", "-d", "overlay", "n"])
            .await
            .fails("This node is not a swarm manager");
        door.run(testkit::peer("docker"), &["swarm", "join", "--token", "x", "10.0.0.1:2377"])
            .await
            .fails("cannot join 10.0.0.1:2377");
    });
}

pub(crate) fn swarm_and_nodes() {
    to_its_end(async {
        let door = Door::open().await;
        let said =
            door.run(testkit::peer("docker"), &["swarm", "init", "--advertise-addr", "127.0.0.1"]).await.ok();
        assert!(
            said.contains("Swarm initialized: current node") && said.contains("SWMTKN-1-worker"),
            "{said}"
        );
        door.run(testkit::peer("docker"), &["swarm", "init", "--advertise-addr", "127.0.0.1"])
            .await
            .fails("already part of a swarm");
        assert_eq!(
            door.run(testkit::peer("docker"), &["swarm", "join-token", "-q", "manager"]).await.ok(),
            "SWMTKN-1-manager\n"
        );
        assert_eq!(
            door.run(testkit::peer("docker"), &["swarm", "join-token", "-q", "--rotate", "worker"])
                .await
                .ok(),
            "SWMTKN-1-rotated\n"
        );
        door.run(testkit::peer("docker"), &["swarm", "update", "--task-history-limit", "3"]).await.ok();
        assert_eq!(
            door.client
                .swarm()
                .await
                .expect("what was asked for")
                .spec
                .orchestration
                .task_history_retention_limit,
            Some(3)
        );
        assert!(door.run(testkit::peer("docker"), &["swarm", "ca"]).await.ok().contains("BEGIN CERTIFICATE"));
        let info = door.run(testkit::peer("docker"), &["info"]).await.ok_with_warnings();
        for line in ["Swarm: active", "Is Manager: true", "Nodes: 3", "Managers: 1"] {
            assert!(info.contains(line), "{line} is not in {info}");
        }

        let nodes = door
            .run(
                testkit::peer("docker"),
                &[
                    "node",
                    "ls",
                    "--format",
                    "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}} {{.Self}} {{.TLSStatus}}",
                ],
            )
            .await;
        assert_eq!(
            nodes.lines(),
            [
                "host1 Ready Active Leader true Ready",
                "host2 Ready Active false Ready",
                "host3 Ready Active false Ready"
            ]
        );
        door.run(
            testkit::peer("docker"),
            &["node", "update", "--availability", "drain", "--label-add", "rack=a", "host2"],
        )
        .await
        .ok();
        door.run(testkit::peer("docker"), &["node", "promote", "host3"]).await.ok();
        let one = door
            .run(
                testkit::peer("docker"),
                &[
                    "node",
                    "inspect",
                    "--format",
                    "{{.Spec.Availability}} {{.Spec.Labels.rack}} {{.Description.Hostname}}",
                    "host2",
                ],
            )
            .await;
        assert_eq!(one.lines(), ["drain a host2"]);
        assert_eq!(
            door.run(testkit::peer("docker"), &["node", "inspect", "self", "--format", "{{.Status.Addr}}"])
                .await
                .lines(),
            ["10.1.0.1"]
        );
        let pretty = door.run(testkit::peer("docker"), &["node", "inspect", "--pretty", "host3"]).await.ok();
        assert!(pretty.contains("Availability:") && pretty.contains("Memory:\t\t1GiB"), "{pretty}");
        assert_eq!(
            door.run(testkit::peer("docker"), &["node", "ls", "-q", "--filter", "node.label=rack=a"])
                .await
                .lines()
                .len(),
            1
        );
        assert_eq!(
            door.run(testkit::peer("docker"), &["node", "ls", "-q", "--filter", "role=manager"])
                .await
                .lines()
                .len(),
            2
        );
        door.run(testkit::peer("docker"), &["node", "inspect", "nope"]).await.fails("node nope not found");
        door.run(testkit::peer("docker"), &["node", "rm", "nope"]).await.fails("node nope not found");
        door.run(testkit::peer("docker"), &["node", "rm", "--force", "host3"]).await.ok();
        assert_eq!(door.run(testkit::peer("docker"), &["node", "ls", "-q"]).await.lines().len(), 2);
        door.run(testkit::peer("docker"), &["swarm", "leave"]).await.fails("participating as a manager");
        door.run(testkit::peer("docker"), &["swarm", "leave", "--force"]).await.ok();
        door.run(testkit::peer("docker"), &["node", "ls"]).await.fails("This node is not a swarm manager");
    });
}

pub(crate) fn services() {
    to_its_end(async {
        let door = Door::of_swarm().await;
        let d = |args: &'static str| {
            let args: Vec<_> = args.split(' ').map(|a| a.replace('~', " ")).collect();
            let door = &door;
            async move {
                door.run(testkit::peer("docker"), &args.iter().map(String::as_str).collect::<Vec<_>>()).await
            }
        };
        d("network create -d overlay --attachable --subnet 10.9.0.0/24 back").await.ok();
        d("service create --name web --replicas 2 --network back -p 8080:80 --env A=b --label x=y --constraint node.role!=manager --limit-memory 64m --mount type=volume,source=v,target=/v --health-cmd true --no-resolve-image busybox sleep 1000")
        .await
        .ok();
        assert_eq!(
            d("service ls --format {{.Name}},{{.Mode}},{{.Replicas}},{{.Image}},{{.Ports}}").await.lines(),
            ["web,replicated,2/2,busybox:latest,*:8080->80/tcp"]
        );
        let row = d("service ls").await.lines().pop().expect("what was asked for");
        assert!(row.contains("web replicated 2/2"), "{row}");
        d("service create --name web --no-resolve-image busybox")
            .await
            .fails("name conflicts with an existing object");
        d("service create --name w --network nope --no-resolve-image busybox")
            .await
            .fails("network nope not found");
        d("service create --name w --constraint x --no-resolve-image busybox").await.fails("constraint");

        let seen = d("service inspect web --format {{.Spec.TaskTemplate.ContainerSpec.Env}},{{.Spec.Labels.x}},{{(index~.Endpoint.VirtualIPs~0).Addr}},{{.Spec.TaskTemplate.Placement.Constraints}}").await;
        assert_eq!(seen.lines(), ["[A=b],y,10.0.1.2/24,[node.role!=manager]"]);
        let pretty = d("service inspect --pretty web").await.ok();
        for text in
            ["Replicas:", "busybox:latest", "Networks: back", "PublishedPort = 8080", "node.role!=manager"]
        {
            assert!(pretty.contains(text), "{text} is not in {pretty}");
        }
        let ps = d("service ps web --format {{.Name}},{{.Image}},{{.Node}},{{.DesiredState}},{{.CurrentState}},{{.Error}}").await.lines();
        assert_eq!(ps.len(), 2);
        assert!(
            ps[0].starts_with("web.1,busybox:latest,host") && ps[0].contains(",Running,Running "),
            "{ps:?}"
        );

        let said = d("service scale web=4").await.ok();
        assert!(said.contains("web scaled to 4") && said.contains("converged"), "{said}");
        d("service update --env-add C=d --no-resolve-image web").await.ok();
        d("service update --image busybox:2 --no-resolve-image -d web").await.ok();
        assert_eq!(d("service ls --format {{.Replicas}},{{.Image}}").await.lines(), ["4/4,busybox:2"]);
        let said = d("service rollback web").await.ok();
        assert!(said.contains("verify: Service"), "{said}");
        assert_eq!(d("service ls --format {{.Image}}").await.lines(), ["busybox:latest"]);
        d("service update --force web --no-resolve-image -q").await.ok();
        d("service create --mode global --name all --no-resolve-image -q busybox").await.ok();
        assert_eq!(
            d("service ls --filter mode=global --format {{.Name}},{{.Replicas}}").await.lines(),
            ["all,3/3"]
        );
        assert_eq!(d("node ps host2 --filter name=all --format {{.Name}}").await.lines().len(), 1);
        d("service create --name onhost --network host --no-resolve-image -q busybox")
            .await
            .fails("network host not found");
        d("service inspect nope").await.fails("no such service: nope");
        d("service ps nope").await.fails("no such service: nope");
        d("service rm nope").await.fails("service nope not found");
        assert_eq!(d("service rm web all").await.lines(), ["web", "all"]);
        for _ in 0..2 {
            d("service create -d --no-resolve-image busybox").await.ok();
        }
        let invented = d("service ls --format {{.Name}}").await.lines();
        assert!(invented.len() == 2 && invented[0] != invented[1], "{invented:?}");
        assert!(invented.iter().all(|name| name.contains('_')), "{invented:?}");
        for name in &invented {
            door.run(testkit::peer("docker"), &["service", "rm", name]).await.ok();
        }
        assert_eq!(d("service ls -q").await.lines().len(), 0);
    });
}

pub(crate) fn secrets_configs_and_networks() {
    to_its_end(async {
        let door = Door::of_swarm().await;
        let file = door.path().join("data");
        std::fs::write(&file, "hunter2").expect("what was asked for");
        let file = file.to_str().expect("what was asked for");
        for kind in ["secret", "config"] {
            let id = door
                .run(testkit::peer("docker"), &[kind, "create", "--label", "a=b", "one", file])
                .await
                .ok();
            assert_eq!(id.trim().len(), 25);
            door.run(testkit::peer("docker"), &[kind, "create", "one", file]).await.fails("already exists");
            door.run(testkit::peer("docker"), &[kind, "create", "bad name", file])
                .await
                .fails("invalid name");
            let ls =
                door.run(testkit::peer("docker"), &[kind, "ls", "--format", "{{.Name}} {{.Labels}}"]).await;
            assert_eq!(ls.lines(), ["one a=b"]);
            let seen = door
                .run(testkit::peer("docker"), &[kind, "inspect", "one", "--format", "{{.Spec.Name}} {{.ID}}"])
                .await;
            assert_eq!(seen.ok(), format!("one {id}"));
            assert!(
                door.run(testkit::peer("docker"), &[kind, "inspect", "--pretty", "one"])
                    .await
                    .ok()
                    .contains("one")
            );
            door.run(testkit::peer("docker"), &[kind, "inspect", "nope"])
                .await
                .fails(&format!("{kind} nope not found"));
        }
        assert!(
            door.client.secret("one").await.expect("what was asked for").spec.data.is_empty(),
            "a secret's data is never shown"
        );
        assert!(
            door.run(testkit::peer("docker"), &["config", "inspect", "--pretty", "one"])
                .await
                .ok()
                .contains("hunter2")
        );
        door.run(
            testkit::peer("docker"),
            &[
                "service",
                "create",
                "--name",
                "s",
                "--secret",
                "one",
                "--config",
                "source=one,target=/etc/one,mode=0400",
                "--no-resolve-image",
                "-q",
                "busybox",
            ],
        )
        .await
        .ok();
        let refs = door.run(testkit::peer("docker"), &["service", "inspect", "s", "--format", "{{(index .Spec.TaskTemplate.ContainerSpec.Secrets 0).File.Name}} {{(index .Spec.TaskTemplate.ContainerSpec.Configs 0).File.Mode}}"]).await;
        assert_eq!(refs.lines(), ["one -r--------"]);
        door.run(testkit::peer("docker"), &["secret", "rm", "one"])
            .await
            .fails("secret 'one' is in use by the following service: s");
        door.run(testkit::peer("docker"), &["service", "rm", "s"]).await.ok();
        for kind in ["secret", "config"] {
            assert_eq!(door.run(testkit::peer("docker"), &[kind, "rm", "one"]).await.lines(), ["one"]);
            door.run(testkit::peer("docker"), &[kind, "rm", "one"])
                .await
                .fails(&format!("{kind} one not found"));
        }

        door.run(
            testkit::peer("docker"),
            &["network", "create", "-d", "overlay", "--opt", "encrypted", "--label", "k=v", "net"],
        )
        .await
        .ok();
        door.run(testkit::peer("docker"), &["network", "create", "-d", "overlay", "net"])
            .await
            .fails("network with name net already exists");
        door.run(
            testkit::peer("docker"),
            &["network", "create", "-d", "overlay", "--subnet", "10.0.0.0/99", "n2"],
        )
        .await
        .fails("invalid");
        let ls = door
            .run(
                testkit::peer("docker"),
                &["network", "ls", "--filter", "label=k", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"],
            )
            .await;
        assert_eq!(ls.lines(), ["net overlay swarm"]);
        let seen = door
            .run(
                testkit::peer("docker"),
                &[
                    "network",
                    "inspect",
                    "net",
                    "--format",
                    "{{(index .IPAM.Config 0).Subnet}} {{.Scope}} {{.Options}}",
                ],
            )
            .await;
        assert_eq!(
            seen.lines(),
            ["10.0.1.0/24 swarm map[com.docker.network.driver.overlay.vxlanid_list:4098 encrypted:]"]
        );
        door.run(testkit::peer("docker"), &["network", "inspect", "nope"])
            .await
            .fails("network nope not found");
        assert_eq!(door.run(testkit::peer("docker"), &["network", "rm", "net"]).await.lines(), ["net"]);
        door.run(testkit::peer("docker"), &["network", "rm", "net"]).await.fails("network net not found");
    });
}

pub(crate) fn stacks() {
    to_its_end(async {
        let door = Door::of_swarm().await;
        let file = door.path().join("stack.yml");
        std::fs::write(door.path().join("motd"), "hello").expect("what was asked for");
        std::fs::write(
        &file,
        "services:\n  web:\n    image: web:1\n    ports: ['8080:80']\n    networks: [front]\n    configs: [motd]\n    secrets: [{source: motd, mode: 0440}]\n    volumes: ['data:/data']\n    deploy:\n      replicas: 3\n      update_config: {order: start-first, parallelism: 2, delay: 1s}\n      restart_policy: {condition: on-failure, max_attempts: 3}\n      resources: {limits: {cpus: '0.5', memory: 50M}}\n    healthcheck: {test: [CMD, 'true'], interval: 2s}\n  db:\n    image: db:1\n    stop_grace_period: 2s\nnetworks:\n  front: {attachable: true}\nconfigs:\n  motd: {file: ./motd}\nsecrets:\n  motd: {file: ./motd}\nvolumes:\n  data:\n",
    )
    .expect("what was asked for");
        let file = file.to_str().expect("what was asked for");
        let deploy = ["stack", "deploy", "--resolve-image", "never", "--detach=true", "-c", file, "shop"];
        let said = door.run(testkit::peer("docker"), &deploy).await.ok();
        for line in [
            "Creating network shop_front",
            "Creating network shop_default",
            "Creating secret shop_motd",
            "Creating config shop_motd",
            "Creating service shop_web",
            "Creating service shop_db",
        ] {
            assert!(said.contains(line), "{line} is not in {said}");
        }
        let tasks = || {
            door.world
                .lock()
                .expect("what was asked for")
                .tables
                .tasks
                .values()
                .map(|t| t.id)
                .collect::<Vec<_>>()
        };
        let before = tasks();
        assert_eq!(before.len(), 4);
        let said = door.run(testkit::peer("docker"), &deploy).await.ok();
        assert!(said.contains("Updating service shop_web"), "{said}");
        assert_eq!(tasks(), before, "an unchanged deploy replaces no task");

        assert_eq!(
            door.run(testkit::peer("docker"), &["stack", "ls", "--format", "{{.Name}} {{.Services}}"])
                .await
                .lines(),
            ["shop 2"]
        );
        let services = door
            .run(
                testkit::peer("docker"),
                &["stack", "services", "shop", "--format", "{{.Name}} {{.Replicas}} {{.Image}} {{.Ports}}"],
            )
            .await;
        assert_eq!(services.lines(), ["shop_db 1/1 db:1", "shop_web 3/3 web:1 *:8080->80/tcp"]);
        let ps = door
            .run(testkit::peer("docker"), &["stack", "ps", "shop", "--format", "{{.Name}} {{.DesiredState}}"])
            .await
            .lines();
        assert_eq!(ps.len(), 4);
        assert!(ps.contains(&"shop_web.3 Running".to_owned()), "{ps:?}");
        let said = door
            .run(testkit::peer("docker"), &["stack", "rm", "--detach=false", "shop"])
            .await
            .ok_with_warnings();
        assert!(said.is_empty() || said.contains("Removing"), "{said}");
        {
            let tables = &door.world.lock().expect("what was asked for").tables;
            assert!(tables.services.is_empty() && tables.networks.is_empty() && tables.secrets.is_empty());
        }
        door.run(testkit::peer("docker"), &["stack", "ps", "shop"])
            .await
            .fails("nothing found in stack: shop");
    });
}

/// Runs what a front door answers beside.
fn to_its_end(talk: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(talk);
}
