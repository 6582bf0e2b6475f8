//! The command line as a user meets it: the built program, its output and its exit code.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use shadowmesh_wire::PeerId;

/// The program with nothing of this machine's settings.
fn shadowmesh(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowmesh"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHADOWMESH_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    shadowmesh(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", stdout(output), stderr(output)))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
// PROTOCOL SM-ID-2 SM-ID-3 SM-OV-1 SM-OV-2
fn id_makes_the_identity_once_and_prints_what_other_machines_need() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let first = json(&run(&["id", "--json", "--state-dir", text(&state)]));
    let id: PeerId = first["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(first["created"], true);
    assert_eq!(
        first["ipv4"],
        shadowmesh_wire::overlay::derived_ipv4(&id).to_string()
    );
    assert_eq!(
        first["ipv6"],
        shadowmesh_wire::overlay::derived_ipv6(&id).to_string()
    );
    assert_eq!(first["peer"]["id"], id.to_string());

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("identity")), 0o600);

    let second = json(&run(&["id", "--json", "--state-dir", text(&state)]));
    assert_eq!(second["created"], false);
    assert_eq!(second["id"], first["id"]);
}

#[test]
fn id_needs_no_valid_configuration_but_its_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (file, state) = (
        directory.path().join("a.toml"),
        directory.path().join("state"),
    );
    let id = |text_of_file: &str| {
        fs::write(&file, text_of_file).unwrap();
        run(&["id", "--json", "--config", text(&file)])
    };
    let node = format!("[node]\nstate_dir = \"{}\"\n", text(&state));
    // A peer whose PeerId is not known yet: what one has before the other machine was asked.
    let output = id(&format!("{node}[[peer]]\nname = \"vps\"\n"));
    assert!(json(&output)["id"].is_string());
    assert!(
        stderr(&output).contains("config check"),
        "{}",
        stderr(&output)
    );
    assert!(state.join("identity").exists());
    // Not TOML at all: it may hide where the identity is, and nobody wants a second one.
    assert!(!id("[node\nstate_dir = 1").status.success());
}

#[test]
fn the_block_id_prints_is_a_configuration_as_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    let block = stdout(&run(&["id", "--state-dir", text(&there)]));
    let id = json(&run(&["id", "--json", "--state-dir", text(&there)]))["id"].clone();
    let config = directory.path().join("c.toml");
    fs::write(&config, block).unwrap();
    let check = [
        "config",
        "check",
        "--json",
        "--config",
        text(&config),
        "--state-dir",
        text(&here),
    ];
    let report = json(&run(&check));
    assert_eq!(report["ok"], true);
    assert_eq!(report["peers"].as_array().unwrap().len(), 1);
    assert_eq!(report["peers"][0]["id"], id);

    // The same block on the machine it came from is that machine itself: a file may be shared by all.
    let check = [
        "config",
        "check",
        "--json",
        "--config",
        text(&config),
        "--state-dir",
        text(&there),
    ];
    let report = json(&run(&check));
    assert_eq!(report["peers"], serde_json::json!([]));
    let note = report["warnings"][0].as_str().unwrap();
    assert!(note.contains("is this machine itself"), "{note}");
    assert!(id.is_string());
}

#[test]
// PROTOCOL SM-ID-3
fn an_identity_others_can_read_is_refused_with_the_command_that_mends_it() {
    let directory = tempfile::tempdir().unwrap();
    let state = text(directory.path());
    run(&["id", "--state-dir", state]);
    let file = directory.path().join("identity");
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let output = run(&["id", "--state-dir", state]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let error = stderr(&output);
    assert!(error.contains("is open to others (mode 0644)"), "{error}");
    assert!(
        error.contains(&format!("chmod 600 {}", file.display())),
        "{error}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o644,
        "left alone"
    );
}

#[test]
fn a_state_directory_others_can_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let output = run(&["id", "--state-dir", text(directory.path())]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("chmod 700"), "{}", stderr(&output));
}

#[test]
fn config_check_names_every_problem_with_its_exact_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.toml");
    fs::write(
        &path,
        "[node]\nlisten = [\"0.0.0.0:4433\"]\n\n[session]\nrekey_intervall = \"2m\"\n\
         cipher = \"aes-256-gmc\"\n\n[device]\nmtu = 900\n",
    )
    .unwrap();
    let output = run(&["config", "check", "--config", text(&path)]);
    assert_eq!(output.status.code(), Some(2));
    let error = stderr(&output);
    for expected in [
        format!("{}:5:1", path.display()),
        format!("{}:6:10", path.display()),
        format!("{}:9:7", path.display()),
        "5 | rekey_intervall = \"2m\"".into(),
        "did you mean `rekey_interval`?".into(),
        "valid keys in [session]: rekey_interval, cipher".into(),
        "did you mean `aes-256-gcm`?".into(),
        "expected a number from 1280 to 9000".into(),
    ] {
        assert!(
            error.contains(&expected),
            "{expected} is missing in:\n{error}"
        );
    }

    let report = json(&run(&[
        "config",
        "check",
        "--json",
        "--config",
        text(&path),
    ]));
    let places: Vec<(u64, u64)> = report["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            (
                problem["line"].as_u64().unwrap(),
                problem["column"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(places, [(5, 1), (6, 10), (9, 7)]);
}

#[test]
fn a_named_configuration_must_exist() {
    let output = run(&["config", "check", "--config", "/nonexistent/mesh.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("/nonexistent/mesh.toml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn variables_beat_the_file_and_flags_beat_variables() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.toml");
    fs::write(&path, "[node]\nstate_dir = \"from-file\"\n").unwrap();
    let check = ["config", "check", "--json", "--config", text(&path)];
    let from_file = json(&run(&check));
    assert_eq!(
        from_file["state_dir"],
        text(&directory.path().join("from-file"))
    );

    let mut command = shadowmesh(&check);
    command.env("SHADOWMESH_NODE_STATE_DIR", "/from/variable");
    assert_eq!(
        json(&command.output().unwrap())["state_dir"],
        "/from/variable"
    );

    command.args(["--state-dir", "/from/flag"]);
    assert_eq!(json(&command.output().unwrap())["state_dir"], "/from/flag");
}

#[test]
fn a_wrong_variable_is_named_and_a_misspelt_one_warned_about() {
    let wrong = shadowmesh(&["config", "check"])
        .env("SHADOWMESH_DEVICE_MTU", "x")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("environment variable SHADOWMESH_DEVICE_MTU"));

    let slip = shadowmesh(&["config", "check"])
        .env("SHADOWMESH_DEVICE_MUT", "1400")
        .output()
        .unwrap();
    assert!(slip.status.success());
    assert!(
        stderr(&slip).contains("did you mean SHADOWMESH_DEVICE_MTU?"),
        "{}",
        stderr(&slip)
    );
}

#[test]
fn verbs_that_need_a_node_say_that_none_runs_and_how_to_start_one() {
    let directory = tempfile::tempdir().unwrap();
    let state = text(directory.path());
    for verb in [
        &["status"][..],
        &["peers"],
        &["ping", "vps"],
        &["down"],
        &["bench", "vps"],
    ] {
        let output = shadowmesh(verb)
            .args(["--state-dir", state])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{verb:?}");
        assert!(
            stderr(&output).contains("no node is running"),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(&format!("shadowmesh up --state-dir {state}")));

        let output = shadowmesh(verb)
            .args(["--state-dir", state, "--json"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{verb:?}");
        let report = json(&output);
        assert!(
            report["error"].is_string() && report["next"].is_string(),
            "{report}"
        );
    }
}

#[test]
fn an_unknown_verb_or_flag_gets_the_likely_one() {
    let output = run(&["statsu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'status'"), "{}", stderr(&output));
    for (written, meant) in [
        ("start", "'up'"),
        ("stop", "'down'"),
        ("check", "config check"),
    ] {
        let told = stderr(&run(&[written]));
        assert!(told.contains(meant) && !told.contains("'status'"), "{told}");
    }
    let told = stderr(&run(&["frobnicate"]));
    assert!(!told.contains("similar"), "{told}");
    let output = run(&["up", "--mtuu", "1400"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--mtu"), "{}", stderr(&output));
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("Start here:"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn every_verb_has_help_with_an_example() {
    let verbs: [&[&str]; 13] = [
        &["up"],
        &["relay"],
        &["doctor"],
        &["version"],
        &["down"],
        &["id"],
        &["status"],
        &["peers"],
        &["ping"],
        &["bench"],
        &["bench", "handshake"],
        &["demo"],
        &["config", "check"],
    ];
    for verb in verbs {
        let output = shadowmesh(verb).arg("--help").output().unwrap();
        assert!(output.status.success(), "{verb:?}");
        let help = stdout(&output);
        assert!(help.contains("Example"), "{verb:?}:\n{help}");
        assert!(
            help.contains("--json") && help.contains("--state-dir"),
            "{verb:?}:\n{help}"
        );
    }
}

#[test]
fn the_version_is_told_by_a_verb_too() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        stdout(&run(&["version"])),
        format!("shadowmesh {version}\n")
    );
    assert_eq!(json(&run(&["version", "--json"]))["version"], version);
}

#[test]
fn a_wrong_log_level_is_refused_with_the_valid_ones() {
    let output = run(&["config", "check", "--log-level", "shadowmesh=loud"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("error, warn, info, debug, trace"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn bench_handshake_shows_ours_beside_classical() {
    let report = json(&run(&["bench", "handshake", "--count", "2", "--json"]));
    let handshakes = report["handshakes"].as_array().unwrap();
    let kinds: Vec<&str> = handshakes
        .iter()
        .map(|cost| cost["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["full", "short", "classical"]);
    for cost in handshakes {
        for side in ["client", "server"] {
            assert!(cost[side]["cpu_us"].as_u64().unwrap() > 0, "{cost}");
            assert!(
                cost[side]["bytes_sent"].as_f64().unwrap() > 1000.0,
                "{cost}"
            );
        }
        assert!(cost["per_second"].as_f64().unwrap() > 0.0, "{cost}");
    }
}

#[test]
fn a_wrong_command_line_is_told_as_an_object_to_who_asked_for_one() {
    for (line, what) in [
        (&["--json", "png"][..], "unrecognized subcommand 'png'"),
        (
            &["--json", "ping", "vps", "--count", "0"],
            "invalid value '0'",
        ),
        (&["--json"], "requires a subcommand"),
        (&["--json", "ping"], "<PEER>"),
        (&["config", "--json"], "subcommand"),
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        let error = json(&output)["error"].as_str().unwrap().to_owned();
        assert!(error.contains(what), "{error}");
    }
    assert_eq!(stdout(&run(&["png"])), "");
    assert!(stdout(&run(&["--json", "--help"])).starts_with("Joins"));
}

#[test]
fn the_next_step_checks_the_file_that_was_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let state = text(directory.path());
    let file = directory.path().join("c.toml");
    fs::write(&file, "[device]\nmtu = 1\n").unwrap();
    let told = stderr(&run(&["up", "--config", text(&file), "--state-dir", state]));
    let next = format!("`shadowmesh config check --config {}`", file.display());
    assert!(told.contains(&next), "{told}");

    fs::write(&file, "").unwrap();
    let line = [
        "up",
        "--config",
        text(&file),
        "--state-dir",
        state,
        "--mtu",
        "1",
    ];
    let told = stderr(&run(&line));
    assert!(told.contains("next: correct it and try again"), "{told}");
}

/// A relay on this machine, with these further arguments, and what it says when it is up.
fn start_relay(state: &Path, more: &[&str]) -> (Child, Value) {
    use std::io::{BufRead, BufReader};
    let mut relay = shadowmesh(&["relay", "--json", "--listen", "127.0.0.1:0"])
        .args(["--state-dir", text(state)])
        .args(more)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(relay.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (relay, serde_json::from_str(&line).unwrap())
}

// PROTOCOL SM-WS-6
#[test]
fn a_relay_closes_a_stream_that_brings_no_session() {
    use shadowmesh_io::web::{Client, Incoming, WebUrl};
    use std::task::Poll;
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let (mut relay, up) = start_relay(&state, &["--web-listen", "127.0.0.1:0"]);
    let id: PeerId = up["id"].as_str().unwrap().parse().unwrap();
    let at = up["web_listen"][0].as_str().unwrap();
    let url: WebUrl = format!("https://{at}").parse().unwrap();
    let path = shadowmesh::engine::streams::secret_path(&id);
    let lasted = async {
        let mut stream = Client::new().connect(&url, &path, None).await.unwrap();
        let opened = Instant::now();
        // A sign of life is none of a session.
        stream.ping().unwrap();
        let end = std::future::poll_fn(|cx| {
            let _ = stream.poll_sent(cx);
            loop {
                match stream.poll_receive(cx) {
                    Poll::Ready(Some(Ok(Incoming::Sign))) => {}
                    other => return other.map(|last| assert!(!matches!(last, Some(Ok(_))))),
                }
            }
        });
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, end).await.expect("it ends");
        opened.elapsed()
    };
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let lasted = runtime.block_on(lasted);
    assert!(lasted > Duration::from_secs(14), "{lasted:?}");
    assert!(run(&["down", "--state-dir", text(&state)]).status.success());
    assert!(relay.wait().unwrap().success());
}

#[test]
fn a_relay_runs_without_a_device_tells_its_figures_and_ends_on_down() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    // Whoever had the port gave it up just now; nobody else in this test asks for one.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = port.local_addr().unwrap();
    drop(port);
    let (mut relay, up) = start_relay(&state, &["--metrics-listen", &metrics.to_string()]);
    let block = up["relay_use"].as_str().unwrap();
    assert!(block.contains(up["id"].as_str().unwrap()), "{block}");
    let file = directory.path().join("client.toml");
    fs::write(&file, block).unwrap();
    let client = directory.path().join("client");
    let checked = json(&run(&[
        "config",
        "check",
        "--json",
        "--config",
        text(&file),
        "--state-dir",
        text(&client),
    ]));
    assert_eq!(checked["relay"]["use"][0]["id"], up["id"]);

    let mut reader = std::net::TcpStream::connect(metrics).unwrap();
    reader
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut figures = String::new();
    reader.read_to_string(&mut figures).unwrap();
    assert!(
        figures.contains("shadowmesh_p2p_fallbacks_total 0\n"),
        "{figures}"
    );

    let status = run(&["status", "--state-dir", text(&state)]);
    assert!(
        stdout(&status).contains("it only relays"),
        "{}",
        stdout(&status)
    );
    assert!(run(&["down", "--state-dir", text(&state)]).status.success());
    assert!(relay.wait().unwrap().success());
}

#[test]
fn the_doctor_tells_a_clock_that_is_behind_the_time_of_our_own_files() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    assert!(run(&["id", "--state-dir", text(&state)]).status.success());
    let doctor = || {
        let output = run(&["doctor", "--json", "--state-dir", text(&state)]);
        let network = json(&output)["network"].as_array().unwrap().clone();
        let clock = network.into_iter().find(|found| found["about"] == "clock");
        (output.status.success(), clock)
    };
    let (well, clock) = doctor();
    // Nothing is well where no node runs.
    assert!(!well && clock.is_none(), "{clock:?}");
    let identity = fs::read_dir(&state).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let is_identity = path.file_name()?.to_str()?.contains("identity");
        is_identity.then_some(path)
    });
    let identity = fs::File::options().append(true).open(identity.unwrap());
    let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    identity.unwrap().set_modified(tomorrow).unwrap();
    let (well, clock) = doctor();
    let clock = clock.expect("a finding");
    assert!(!well && clock["level"] == "bad", "{clock}");
    assert!(clock["next"].as_str().unwrap().contains("NTP"), "{clock}");
}

#[test]
// PROTOCOL SM-OV-3
fn config_check_warns_of_a_network_behind_a_peer_as_text_and_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let (file, state) = (directory.path().join("t.toml"), directory.path().join("s"));
    let id = json(&run(&[
        "id",
        "--json",
        "--state-dir",
        text(&directory.path().join("o")),
    ]));
    let id = id["id"].as_str().unwrap();
    let check = |allowed: &str, more: &[&str]| {
        let peer =
            format!("[[peer]]\nid = \"{id}\"\nname = \"office\"\nallowed_ips = [{allowed}]\n");
        fs::write(&file, peer).unwrap();
        let arguments = [
            "config",
            "check",
            "--config",
            text(&file),
            "--state-dir",
            text(&state),
        ];
        let output = run(&[&arguments, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    let network = "\"10.9.9.9/32\", \"192.168.7.0/24\"";
    let said = stdout(&check(network, &[]));
    assert!(
        said.contains("warning: allowed_ips of office has the network 192.168.7.0/24"),
        "{said}"
    );
    assert!(
        said.contains("not_for_us") && !said.contains("network 10.9.9.9"),
        "{said}"
    );
    let warnings = json(&check(network, &["--json"]))["warnings"].clone();
    assert!(
        warnings[0].as_str().unwrap().contains("192.168.7.0/24"),
        "{warnings}"
    );
    let hosts = "\"10.9.9.9/32\", \"fd00::9/128\"";
    assert!(!stdout(&check(hosts, &[])).contains("warning"));
    assert_eq!(
        json(&check(hosts, &["--json"]))["warnings"],
        serde_json::json!([])
    );
}

#[test]
// PROTOCOL SM-ID-4
fn a_configuration_or_identity_of_somebody_else_is_refused_with_the_command_that_mends_it() {
    let directory = tempfile::tempdir().unwrap();
    let (file, state) = (directory.path().join("t.toml"), directory.path().join("s"));
    run(&["id", "--state-dir", text(&state)]);
    fs::write(&file, "").unwrap();
    let check = || {
        run(&[
            "config",
            "check",
            "--config",
            text(&file),
            "--state-dir",
            text(&state),
        ])
    };
    assert!(check().status.success());
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let output = check();
    assert!(
        !output.status.success() && stderr(&output).contains("chmod go-w"),
        "{}",
        stderr(&output)
    );
    fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    for path in [&file, &state.join("identity"), &state] {
        let give = |to| std::os::unix::fs::chown(path, Some(to), None);
        if give(4711).is_err() {
            return; // only root can give anything away
        }
        let output = check();
        let said = stderr(&output);
        assert!(!output.status.success(), "{}", path.display());
        let cure = match *path == state {
            true => "--state-dir",
            false => "chown 0",
        };
        assert!(said.contains("user 4711") && said.contains(cure), "{said}");
        give(0).unwrap();
    }
    assert!(check().status.success());
}

#[test]
// PROTOCOL SM-ST-2
fn a_relay_runs_although_its_addresses_are_not_there_and_other_ports_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    // RFC 5737: nobody has it. The port is this test's own while it holds the other.
    let missing = format!("192.0.2.77:{}", holder.local_addr().unwrap().port());
    let more = [
        "--listen",
        &missing,
        "--metrics-listen",
        &taken,
        "--web-listen",
        &taken,
        "--announce",
        "203.0.113.5:4433",
    ];
    let (mut relay, up) = start_relay(&state, &more);
    assert!(
        up["relay_use"]
            .as_str()
            .unwrap()
            .contains("203.0.113.5:4433"),
        "{up}"
    );
    let status = || json(&run(&["status", "--json", "--state-dir", text(&state)]));
    let told = |what: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = status();
            let notices = status["notices"].to_string();
            if notices.contains(what) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    told("waiting for 192.0.2.77");
    told("cannot serve metrics");
    told("cannot listen on TCP");
    let kinds = status()["candidates"].to_string();
    assert!(kinds.contains("announced"), "{kinds}");
    assert!(run(&["down", "--state-dir", text(&state)]).status.success());
    assert!(relay.wait().unwrap().success());
}

#[test]
// PROTOCOL SM-ST-1
fn a_log_that_cannot_be_written_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut relay = shadowmesh(&["relay", "--listen", "127.0.0.1:0", "--log-level", "debug"])
        .args(["--state-dir", text(&state)])
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = || {
        run(&["status", "--state-dir", text(&state)])
            .status
            .success()
    };
    while !status() {
        assert!(Instant::now() < deadline && relay.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(run(&["down", "--state-dir", text(&state)]).status.success());
    assert!(relay.wait().unwrap().success());
}
