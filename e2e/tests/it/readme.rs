//! The README's first integration, typed in as it stands there.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use e2e::Home;
use http::Method;
use provider_sim::browser::Browser;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::path;
use crate::system::System;

/// A program that starts Python or Node, on a busy machine.
const SAID: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn first_integration_in_rust() {
    let test = std::env::current_exe().expect("this binary");
    let built = test.ancestors().nth(2).expect("it lies in deps");
    let program = built.join("examples/first_integration");
    first_integration(async |_| Command::new(&program)).await;
    let readme = std::fs::read_to_string(e2e::root().join("README.md")).expect("it is there");
    let example = e2e::root().join("e2e/examples/first_integration.rs");
    let example = std::fs::read_to_string(example).expect("it is there");
    let example: String = lines(&example).collect();
    let shown: String = lines(&block(&readme, "rust,ignore")).collect();
    assert!(
        example.contains(&shown),
        "what the README shows is not in the example"
    );
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(|line| format!("{}\n", line.trim()))
}

/// The README's program in a language.
pub(crate) fn program(language: &str) -> String {
    let readme = std::fs::read_to_string(e2e::root().join("README.md")).expect("it is there");
    block(&readme, language)
}

fn block(readme: &str, language: &str) -> String {
    let (_, rest) = readme
        .split_once(&format!("```{language}\n"))
        .unwrap_or_else(|| panic!("the README has no {language}"));
    let (block, _) = rest.split_once("```").expect("the block has an end");
    block.to_owned()
}

/// Does what the README says up to the program, runs the program that `make` makes in a folder, and is the user who is
/// sent to the browser.
pub(crate) async fn first_integration(make: impl AsyncFnOnce(&Path) -> Command) {
    let home = Home::new().expect("a folder");
    let system = System::start(&home).await;
    let seeded = system.command(&["db", "seed"]).expect("it runs");
    assert!(seeded.status.success(), "{seeded:?}");
    let folder = home.path().join("application");
    std::fs::create_dir(&folder).expect("a folder");
    let link = |from: &Path, name: &str| std::os::unix::fs::symlink(from, folder.join(name));
    link(system.data_dir(), ".hawser").expect("a link");
    link(&e2e::root().join("proto"), "proto").expect("a link");

    let mut program = make(&folder)
        .await
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut said = BufReader::new(program.stdout.take().expect("piped")).lines();
    let redirect_uri = after(&mut said, "register with the provider: ").await;
    let client = json!({
        "client_id": "sim-oidc",
        "client_secrets": ["sim-secret"],
        "redirect_uris": [redirect_uri],
    });
    system
        .sim(Method::PUT, "/providers/oidc/clients", Some(client))
        .await;

    let link = after(&mut said, "open in the user's browser, then press Enter: ").await;
    let mut browser = Browser::new();
    let consent = path::begin(&mut browser, &link).await;
    let back = browser
        .consent(consent.as_str(), "alice")
        .await
        .expect("the provider's consent page");
    let last = path::arrive(&system, &mut browser, back).await;
    assert!(last.answer.status.is_success(), "{}", last.answer.text());

    let mut enter = program.stdin.take().expect("piped");
    enter.write_all(b"\n").await.expect("it reads");
    let headers = after(&mut said, "call the provider with ").await;
    assert!(
        headers.to_lowercase().contains("authorization"),
        "{headers}"
    );
    let status = tokio::time::timeout(SAID, program.wait()).await;
    let status = status.expect("it ends").expect("it can be waited for");
    assert!(status.success(), "it ended with {status}");
    system.hawser.finish().await;
}

/// What stands behind `words` in the first line that has them.
async fn after(said: &mut Lines<BufReader<ChildStdout>>, words: &str) -> String {
    let search = async {
        while let Some(line) = said.next_line().await.expect("text") {
            if let Some((_, rest)) = line.split_once(words) {
                return rest.to_owned();
            }
        }
        panic!("it ended without `{words}`")
    };
    tokio::time::timeout(SAID, search)
        .await
        .unwrap_or_else(|_| panic!("it does not say `{words}`"))
}
