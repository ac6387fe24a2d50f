//! Works through a page of the documentation like a reader: runs its shell blocks, one after the other, in one shell.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use harness::programs;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use super::desk::Desk;

/// The beginning of the comment before a block that no test can run: `<!-- not run: REASON -->`.
const NOT_RUN: &str = "<!-- not run: ";

/// A fenced block of a page.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) text: String,
    /// Why the block is not run, if it is marked.
    pub(crate) not_run: Option<String>,
    /// The output that the page shows for this block.
    shown: String,
}

impl Block {
    /// Whether the block is for a shell.
    pub(crate) fn is_shell(&self) -> bool {
        ["sh", "console"].contains(&&self.language[..])
    }
}

/// The repository's folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests have a parent folder")
}

/// The fenced blocks of a page.
pub(crate) fn blocks(page: &str) -> Result<Vec<Block>> {
    let text = fs::read_to_string(root().join(page)).with_context(|| page.to_owned())?;
    let mut blocks: Vec<Block> = Vec::new();
    let mut before = "";
    // Whether there are only blank lines between the last block and this line.
    let mut follows = false;
    let mut lines = (1..).zip(text.lines());
    while let Some((line, text)) = lines.next() {
        let Some(language) = text.strip_prefix("```") else {
            if !text.trim().is_empty() {
                (before, follows) = (text, false);
            }
            continue;
        };
        let body: Vec<_> = lines.by_ref().map(|(_, text)| text).take_while(|text| *text != "```").collect();
        let mark = before.strip_prefix(NOT_RUN).and_then(|mark| mark.strip_suffix(" -->"));
        let mut block = Block {
            line,
            language: language.to_owned(),
            text: body.join("\n"),
            not_run: mark.map(str::to_owned),
            shown: String::new(),
        };
        if language == "console" {
            let (commands, shown): (Vec<&str>, Vec<&str>) = body.into_iter().partition(|line| line.starts_with("$ "));
            block.text = commands.into_iter().map(|command| &command[2..]).collect::<Vec<_>>().join("\n");
            block.shown = shown.join("\n");
        }
        if let Some(last) = blocks.last_mut().filter(|last| follows && last.language == "sh" && language == "text") {
            last.shown.clone_from(&block.text);
        }
        blocks.push(block);
        (before, follows) = ("", true);
    }
    Ok(blocks)
}

/// The parts of an output line that are the same in every cluster: the titles of columns, or the label at the beginning.
fn stable(line: &str) -> Vec<&str> {
    let is_title = |word: &str| word.chars().all(|c| c.is_ascii_uppercase());
    let words: Vec<_> = line.split_whitespace().collect();
    if words.iter().all(|word| is_title(word)) {
        return words;
    }
    let label = words.iter().take(2).position(|word| word.ends_with(':'));
    label.filter(|_| !line.starts_with(' ')).map(|end| words[..=end].to_vec()).unwrap_or_default()
}

/// A page whose shell blocks are being run.
pub(crate) struct Page<'d> {
    name: &'static str,
    blocks: VecDeque<Block>,
    desk: &'d Desk,
    /// Placeholders in the page that every reader replaces, and their values in this test.
    own: Vec<(String, String)>,
    shell: Shell,
}

impl<'d> Page<'d> {
    /// Opens a page; its shell starts in the work tree.
    pub(crate) fn open(name: &'static str, desk: &'d Desk) -> Result<Self> {
        let is_run = |block: &Block| block.is_shell() && block.not_run.is_none();
        let blocks = blocks(name)?.into_iter().filter(is_run).collect();
        Ok(Self { name, blocks, desk, own: Vec::new(), shell: Shell::start(desk)? })
    }

    /// From here on, this part of the page is replaced by `own`.
    pub(crate) fn replace(&mut self, part: &str, own: impl Into<String>) {
        self.own.push((part.to_owned(), own.into()));
    }

    /// Runs the next block, which must contain `part`. Returns its output.
    pub(crate) async fn run(&mut self, part: &str) -> Result<String> {
        let (block, script) = self.next(part)?;
        let said = self.shell.run(&script).await.with_context(|| self.place(&block))?;
        for wanted in block.shown.lines().map(stable).filter(|wanted| !wanted.is_empty()) {
            let is_there =
                said.lines().any(|line| line.split_whitespace().take(wanted.len()).eq(wanted.iter().copied()));
            ensure!(is_there, "{}: no line begins with {wanted:?} in:\n{said}", self.place(&block));
        }
        Ok(said)
    }

    /// Like [`Page::run`], but runs the block at a terminal, and gives these answers to its questions.
    pub(crate) async fn answer(&mut self, part: &str, answers: &'static [(&str, &str)]) -> Result<String> {
        let (block, script) = self.next(part)?;
        let mut command = self.desk.command("bash");
        command.args(["-eu", "-o", "pipefail"]).arg(script);
        let (code, said) = tokio::task::spawn_blocking(move || programs::answering(&command, answers)).await??;
        ensure!(code == Some(0), "{}: it ended with {code:?}\n{said}", self.place(&block));
        Ok(said)
    }

    /// Closes the page, and checks that every block was run.
    pub(crate) fn close(self) -> Result<()> {
        let left: Vec<_> = self.blocks.iter().map(|block| self.place(block)).collect();
        ensure!(left.is_empty(), "nobody ran {}", left.join(", "));
        Ok(())
    }

    fn next(&mut self, part: &str) -> Result<(Block, PathBuf)> {
        let block =
            self.blocks.pop_front().with_context(|| format!("{}: no block with {part:?} is left", self.name))?;
        ensure!(block.text.contains(part), "{}: the next block has no {part:?}:\n{}", self.place(&block), block.text);
        let text = self.own.iter().fold(block.text.clone(), |text, (part, own)| text.replace(part, own));
        let script = self.desk.home.path().join("block");
        fs::write(&script, text)?;
        Ok((block, script))
    }

    fn place(&self, block: &Block) -> String {
        format!("{}:{}", self.name, block.line)
    }
}

/// A shell that ends at the first command that fails. Its variables are kept between blocks.
struct Shell {
    child: Child,
    input: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    output: PathBuf,
}

impl Shell {
    fn start(desk: &Desk) -> Result<Self> {
        let mut command = tokio::process::Command::from(desk.command("bash"));
        command.args(["-eu", "-o", "pipefail"]).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("standard input")?;
        let answers = BufReader::new(child.stdout.take().context("standard output")?).lines();
        Ok(Self { child, input, answers, output: desk.home.path().join("output") })
    }

    /// Runs a script in this shell, without starting another one.
    async fn run(&mut self, script: &Path) -> Result<String> {
        let (script, output) = (script.display(), self.output.display());
        let command = format!(". '{script}' < /dev/null > '{output}' 2>&1\necho done\n");
        self.input.write_all(command.as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        let said = fs::read_to_string(&self.output)?;
        if answer.is_none() {
            anyhow::bail!("it ended with {}:\n{said}", self.child.wait().await?);
        }
        Ok(said)
    }
}
