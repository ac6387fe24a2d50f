//! `gitseal`: seal secrets so that they are safe to commit, and see what the controller does with them.
#![cfg_attr(test, allow(clippy::unwrap_used))]
// Nothing of a program can be reached from outside; `pub` says what its modules offer each other.
#![allow(unreachable_pub)]

mod certificate;
mod commands;
mod completion;
mod controller;
mod edit;
mod following;
mod found;
mod global;
mod kubeseal;
mod managed;
mod output;
mod parallel;
mod service_proxy;
mod suspension;
mod target;
mod templates;
mod time;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use commands::Command;
use global::Global;

/// Seal secrets so that they are safe to commit, and see what the controller does with them.
///
/// gitseal-controller applies manifests from Git to a Kubernetes cluster and unseals SealedSecrets on the way. This program
/// seals Secrets, installs the controller, and shows and controls what it does.
#[derive(clap::Parser)]
#[command(name = "gitseal", version, arg_required_else_help = true)]
#[command(styles = output::STYLES)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// The whole command line, for completions and manual pages.
fn command_line() -> clap::Command {
    flowing(Cli::command().max_term_width(WIDTH))
}

/// Help is no wider than a terminal that nobody made wider.
const WIDTH: usize = 80;

/// Paragraphs of a long help whose line ends are kept for the sake of examples are filled anew, but for the examples.
fn flowing(command: clap::Command) -> clap::Command {
    let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let command = if about.contains('\n') {
        let fill = |text: &str| if text.contains("    ") { text.to_owned() } else { text.replace('\n', " ") };
        command.long_about(about.split("\n\n").map(fill).collect::<Vec<_>>().join("\n\n"))
    } else {
        command
    };
    command.mut_subcommands(flowing)
}

/// The command line as its help shows it: what every command takes is explained once, in the help of the program.
fn with_short_help() -> clap::Command {
    fn shorten(command: clap::Command) -> clap::Command {
        const GLOBAL: &str = "Options of every command, such as --namespace and --output: gitseal --help";
        let command = command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        command.after_help(GLOBAL).mut_subcommands(shorten)
    }
    let mut command = command_line();
    // Only then do the subcommands have these options.
    command.build();
    command.mut_subcommands(shorten)
}

fn main() -> ExitCode {
    completion::answer().unwrap_or_else(run)
}

#[tokio::main(flavor = "current_thread")]
async fn run() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    if let Some(arguments) = as_kubeseal(&arguments) {
        return kubeseal::run(arguments.to_vec()).await;
    }
    let matches = with_short_help().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.format(&mut command_line()).exit(),
    };
    let failure = cli.command.failure();
    match cli.command.run(&cli.global).await {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            failure
        }
    }
}

/// The arguments for kubeseal, if that is the program's name or the first argument.
fn as_kubeseal(arguments: &[String]) -> Option<&[String]> {
    let (program, arguments) = arguments.split_first()?;
    let is_kubeseal = |name: &OsStr| name.eq_ignore_ascii_case(kubeseal::NAME);
    if Path::new(program).file_stem().is_some_and(is_kubeseal) {
        return Some(arguments);
    }
    arguments.split_first().filter(|(first, _)| *first == kubeseal::NAME).map(|(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::as_kubeseal;

    /// Text whose line ends are kept is wrapped once more where it is wider than the help.
    #[test]
    fn no_line_of_a_help_breaks_in_the_middle() {
        let mut commands = vec![super::command_line()];
        while let Some(command) = commands.pop() {
            let about = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            for paragraph in about.split("\n\n").filter(|paragraph| paragraph.contains('\n')) {
                let wide = paragraph.lines().find(|line| line.chars().count() > super::WIDTH);
                assert_eq!(wide, None, "{}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn every_help_fits_80_columns_and_explains_global_options_once() {
        let mut root = super::with_short_help();
        let help = root.render_long_help().to_string();
        assert!(help.contains("--kubeconfig") && help.contains("--controller-name"), "{help}");
        let mut commands = vec![root];
        while let Some(mut command) = commands.pop() {
            let name = command.get_name().to_owned();
            for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
                let wide = help.lines().find(|line| line.chars().count() > super::WIDTH);
                assert_eq!(wide, None, "{name}");
                if name != "gitseal" {
                    assert!(!help.contains("--kubeconfig <") && !help.contains("Global options"), "{name}:\n{help}");
                }
            }
            let is_kubeseal = name == crate::kubeseal::NAME;
            commands.extend(command.get_subcommands().filter(|sub| !is_kubeseal && sub.get_name() != "help").cloned());
        }
    }

    #[test]
    fn kubeseal_is_known_by_its_name() {
        let rest = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            as_kubeseal(&arguments).map(|rest| rest.join(" "))
        };
        for line in ["kubeseal --raw x", "/bin/kubeseal --raw x", "kubeseal.exe --raw x", "gitseal kubeseal --raw x"] {
            assert_eq!(rest(line).as_deref(), Some("--raw x"), "{line}");
        }
        for line in ["gitseal", "gitseal seal kubeseal", "/kubeseal/gitseal", "gitseal -n x"] {
            assert_eq!(rest(line), None, "{line}");
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        super::command_line().debug_assert();
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            assert!(command.get_about().is_some(), "no help for{path}");
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "no help for {id} of{path}");
            }
            for sub in command.get_subcommands() {
                check(sub, &path);
            }
        }
        let mut command = super::command_line();
        command.build();
        check(&command, "");
    }
}
