//! `gitseal`: seal secrets so that they are safe to commit, and see what the controller does with them.
#![cfg_attr(test, allow(clippy::unwrap_used))]
// No item of a program can be used from outside; `pub` marks what modules offer to each other.
#![allow(unreachable_pub)]

mod certificate;
mod chart_inputs;
mod commands;
mod completion;
mod controller;
mod copies;
mod edit;
mod fleet;
mod folder;
mod following;
mod found;
mod global;
mod kubeseal;
mod lease;
mod managed;
mod manifest_files;
mod output;
mod parallel;
mod scopes;
mod service_proxy;
mod suspension;
mod sync_file;
mod target;
mod templates;
mod time;
mod working_copy;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use commands::Command;
use global::Global;
use output::{Hint, OutputFormat};

/// Seal secrets so that they are safe to commit, and see what the controller does with them.
///
/// gitseal-controller applies manifests from Git to a Kubernetes cluster and unseals SealedSecrets on the way. This program
/// seals Secrets, installs the controller, and shows and controls what the controller does.
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

/// Help is no wider than an ordinary terminal.
const WIDTH: usize = 80;

/// Joins the lines of each paragraph of a long help, so that clap can wrap it. Examples keep their line breaks.
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

/// The command line as its help shows it. The options that all commands have are explained only in the help of the
/// program.
fn with_short_help() -> clap::Command {
    fn shorten(command: clap::Command) -> clap::Command {
        const GLOBAL: &str = "Options that all commands have, such as --namespace and --output: gitseal --help";
        let command = command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        command.after_help(GLOBAL).mut_subcommands(shorten)
    }
    let mut command = command_line();
    // `build` copies the global options to the subcommands. Before this call, a subcommand has no such options to hide.
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
    let cli = match read(&std::env::args_os().collect::<Vec<_>>()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let failure = cli.command.failure();
    match Box::pin(carry_out(cli)).await {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(&error);
            if output::is_wrong_usage(&error) { ExitCode::from(WRONG_USAGE) } else { failure }
        }
    }
}

/// Exit code for wrong usage, as in clap.
const WRONG_USAGE: u8 = 2;

fn read<T: Into<OsString> + Clone>(arguments: &[T]) -> Result<Cli, clap::Error> {
    let mut command = with_short_help();
    let matches = command.try_get_matches_from_mut(arguments.iter().cloned()).map_err(|error| {
        // The usage in the error would also show options that come only from the environment.
        let plain = without_environment().try_get_matches_from(arguments.iter().cloned()).err();
        plain.filter(|plain| plain.kind() == error.kind()).unwrap_or(error)
    })?;
    refuse_empty_values(&mut command, &matches)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command_line()))
}

async fn carry_out(cli: Cli) -> anyhow::Result<ExitCode> {
    if cli.global.output == Some(OutputFormat::Name) && !cli.command.prints_names() {
        let hint = "nothing was done; use --output json or --output yaml";
        return Err(Hint::wrong_usage("this command has no names of objects to print", hint));
    }
    cli.command.run(&cli.global).await
}

/// The option `--take-over-from`, for which an empty list has a meaning: objects of no field manager are taken over.
const MAY_BE_EMPTY: &str = "take_over_from";

/// For all other options and arguments, an empty value is an error. A shell makes it from a variable that is not set,
/// and it must not mean "all namespaces".
fn refuse_empty_values(command: &mut clap::Command, matches: &ArgMatches) -> Result<(), clap::Error> {
    let is_given =
        |id: &str| matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let is_empty = |argument: &&clap::Arg| {
        let id = argument.get_id().as_str();
        let values = matches.try_get_raw(id).ok().flatten();
        id != MAY_BE_EMPTY && is_given(id) && values.into_iter().flatten().any(OsStr::is_empty)
    };
    let message = command.get_arguments().find(is_empty).map(|argument| {
        let is_of_environment = matches.value_source(argument.get_id().as_str()) == Some(ValueSource::EnvVariable);
        let from = argument.get_env().filter(|_| is_of_environment);
        let from = from.map(|name| format!(" (${})", name.to_string_lossy())).unwrap_or_default();
        format!("'{argument}'{from} has an empty value: give a value, or leave it out")
    });
    if let Some(message) = message {
        return Err(command.error(ErrorKind::InvalidValue, message));
    }
    match matches.subcommand() {
        Some((name, matches)) => {
            command.find_subcommand_mut(name).map_or(Ok(()), |command| refuse_empty_values(command, matches))
        }
        None => Ok(()),
    }
}

/// The command line, as if no environment variable were set.
fn without_environment() -> clap::Command {
    fn forget(command: clap::Command) -> clap::Command {
        command.mut_args(|argument| argument.env(None::<&'static str>)).mut_subcommands(forget)
    }
    forget(with_short_help())
}

/// The arguments for kubeseal, if the program's name or the first argument is `kubeseal`.
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
    use super::{as_kubeseal, read};

    /// clap wraps lines that are wider than the help, also those of a text that keeps its own line breaks.
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
    fn no_option_and_no_argument_is_empty() {
        let mut command = super::command_line();
        command.build();
        let mut commands = vec![(vec!["gitseal".to_owned()], command)];
        while let Some((path, command)) = commands.pop() {
            let of_kubeseal = |argument: &&clap::Arg| {
                path.last().is_some_and(|name| name == crate::kubeseal::NAME) && !argument.is_global_set()
            };
            let long = command.get_arguments().filter(|argument| argument.get_action().takes_values());
            for argument in long.filter(|argument| !of_kubeseal(argument)) {
                let Some(name) = argument.get_long().filter(|_| argument.get_id() != super::MAY_BE_EMPTY) else {
                    continue;
                };
                let line = [&path[..], &[format!("--{name}="), "x".into()]].concat();
                let error = read(&line).err().map(|error| (error.exit_code(), error.to_string()));
                assert!(matches!(&error, Some((2, _))), "{line:?}: {error:?}");
            }
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                commands.push(([&path[..], &[sub.get_name().to_owned()]].concat(), sub.clone()));
            }
        }
        for line in ["gitseal suspend --all --reason x -n", "gitseal resume --all -n", "gitseal status -A --context"] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).chain([String::new()]).collect();
            let error = read(&words).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("has an empty value"), "{line}: {error}");
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
