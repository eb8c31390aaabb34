//! Modules that need each other in a circle can only be read, moved and tested together: a circle is small.
//!
//! A module needs another one if it names something that is defined there: in a `use`, in a path, through a name that
//! a `use` gives it (`use crate::life;` and then `life::start::go()`), or through what a folder or the root shows of
//! its inside (`pub use`). What the root of a crate defines itself is everybody's, and what a module declares below
//! itself is its inside: neither is counted.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// *Limit* of modules in one circle.
const CIRCLE_MAX: usize = 3;

type Module = Vec<String>;
type Needs = BTreeMap<Module, BTreeSet<Module>>;

/// Returns the files of a crate, by module.
fn modules(src: &Path) -> BTreeMap<Module, PathBuf> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![(src.to_owned(), Module::new())];
    while let Some((folder, above)) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let mut module = above.clone();
            if path.is_dir() {
                if name != "bin" && name != "tests" {
                    module.push(name);
                    waiting.push((path, module));
                }
            } else if path.extension().is_some_and(|e| e == "rs") && name != "tests" {
                if !["lib", "main", "mod"].contains(&name.as_str()) {
                    module.push(name);
                }
                found.insert(module, path);
            }
        }
    }
    found
}

/// What a file says, without its tests.
#[derive(Debug, Default)]
struct Said {
    /// What it defines.
    defined: BTreeSet<String>,
    /// The names that `use` gives it, and of what.
    named: BTreeMap<String, Module>,
    /// The modules of which it has every name.
    all_of: Vec<Module>,
    /// The paths that it follows.
    followed: BTreeSet<Module>,
}

impl Said {
    fn in_text(text: &str) -> Result<Self, proc_macro2::LexError> {
        let mut said = Self::default();
        said.hear(text.parse()?, true);
        Ok(said)
    }

    fn hear(&mut self, tokens: TokenStream, is_outermost: bool) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Punct(mark) if mark.as_char() == '#' && is_for_tests(tokens.get(at + 1)) => {
                    // What it stands before ends with braces or a semicolon.
                    at += 2;
                    while at < tokens.len() && !ends_an_item(&tokens[at]) {
                        at += 1;
                    }
                }
                // Who may see it is no path.
                TokenTree::Ident(word)
                    if word == "pub" && matches!(tokens.get(at + 1), Some(TokenTree::Group(_))) =>
                {
                    at += 1;
                }
                TokenTree::Ident(word) if word == "use" => {
                    at = self.hear_use(&tokens, at + 1, Vec::new());
                    continue;
                }
                TokenTree::Ident(word) => {
                    if is_outermost
                        && DEFINES.contains(&word.to_string().as_str())
                        && let Some(TokenTree::Ident(name)) = tokens.get(at + 1)
                    {
                        self.defined.insert(name.to_string());
                    }
                    let (path, end) = path(&tokens, at);
                    if path.len() > 1 || ["crate", "self", "super"].contains(&path[0].as_str()) {
                        self.followed.insert(path);
                    }
                    at = end;
                    continue;
                }
                TokenTree::Group(group) => self.hear(group.stream(), false),
                _ => {}
            }
            at += 1;
        }
    }

    /// Follows the tree of a `use` from `at`; returns where it ends.
    fn hear_use(&mut self, tokens: &[TokenTree], mut at: usize, mut above: Module) -> usize {
        // `use ::outside::Thing` is nobody's here.
        let is_outside = above.is_empty() && is_double_colon(tokens, at);
        loop {
            match tokens.get(at) {
                Some(TokenTree::Ident(name)) => above.push(name.to_string()),
                Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => {
                    self.all_of.push(above);
                    return at + 1;
                }
                Some(TokenTree::Group(tree)) if tree.delimiter() == Delimiter::Brace => {
                    let inside: Vec<TokenTree> = tree.stream().into_iter().collect();
                    let is_comma = |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == ',');
                    for branch in inside.split(is_comma).filter(|branch| !branch.is_empty()) {
                        self.hear_use(branch, 0, above.clone());
                    }
                    return at + 1;
                }
                _ => break,
            }
            at += 1;
            if !is_double_colon(tokens, at) {
                break;
            }
            at += 2;
        }
        if above.len() > 1 && above.last().is_some_and(|last| last == "self") {
            above.pop();
        }
        let other = match (tokens.get(at), tokens.get(at + 1)) {
            (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(name))) if word == "as" => {
                at += 2;
                Some(name.to_string())
            }
            _ => above.last().cloned(),
        };
        if let Some(name) = other.filter(|_| !is_outside) {
            self.named.insert(name, above);
        }
        at
    }
}

/// Words before the name of what they define.
const DEFINES: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod"];

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    is_colon(at) && is_colon(at + 1)
}

fn is_for_tests(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.stream().to_string().replace(' ', "") == "cfg(test)")
}

fn ends_an_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(mark) => mark.as_char() == ';',
        _ => false,
    }
}

/// Reads one path from `at`; returns it and where it ends.
fn path(tokens: &[TokenTree], mut at: usize) -> (Module, usize) {
    let mut names = Module::new();
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        names.push(name.to_string());
        at += 1;
        if !is_double_colon(tokens, at) {
            break;
        }
        at += 2;
    }
    (names, at)
}

/// All modules of a crate, and what each says.
type Crate = BTreeMap<Module, Said>;

/// What a path means.
#[derive(Debug, PartialEq)]
enum Meant {
    Module(Module),
    /// What a module defines.
    DefinedIn(Module),
}

impl Meant {
    fn module(self) -> Module {
        match self {
            Self::Module(module) | Self::DefinedIn(module) => module,
        }
    }
}

/// A search for what a path means.
struct Search<'a> {
    all: &'a Crate,
    /// Where it has looked, and for what: names may lead in circles.
    looked: BTreeSet<(Module, Module)>,
}

impl Search<'_> {
    /// Returns what `path` means in `from`; none, if it is of another crate.
    fn meant(&mut self, from: &Module, path: &[String]) -> Option<Meant> {
        let all = self.all;
        let mut here = from.clone();
        for (at, name) in path.iter().enumerate() {
            let below: Module = here.iter().cloned().chain([name.clone()]).collect();
            match name.as_str() {
                "crate" => here = Module::new(),
                "self" => {}
                "super" => drop(here.pop()),
                _ if all.contains_key(&below) => here = below,
                name if all.get(&here)?.defined.contains(name) => return Some(Meant::DefinedIn(here)),
                name => {
                    let rest = &path[at + 1..];
                    // What nobody defines there is a macro's work, or another crate's.
                    let made = (at > 0).then(|| Meant::DefinedIn(here.clone()));
                    if path.len() > PATH_MAX || !self.looked.insert((here.clone(), path[at..].to_vec())) {
                        return made;
                    }
                    let given = all[&here].named.get(name);
                    let given = given.and_then(|of| self.meant(&here, &[of, rest].concat()));
                    return given.or_else(|| self.shown(&here, &path[at..])).or(made);
                }
            }
        }
        Some(Meant::Module(here))
    }

    /// Looks for it in the modules of which `here` has every name.
    fn shown(&mut self, here: &Module, path: &[String]) -> Option<Meant> {
        self.all[here].all_of.iter().find_map(|of| {
            let there = self.meant(here, of)?.module();
            let found = self.meant(&there, path)?;
            // Where it is not defined either, nothing is found.
            (found != Meant::DefinedIn(there.clone()) || self.all[&there].defined.contains(&path[0]))
                .then_some(found)
        })
    }
}

/// Longer than any path that somebody writes.
const PATH_MAX: usize = 16;

fn needs(src: &Path) -> Needs {
    let said = |file: &Path| {
        let text = std::fs::read_to_string(file).expect("a readable file");
        Said::in_text(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    };
    let all: Crate = modules(src).into_iter().map(|(module, file)| (module, said(&file))).collect();
    needs_of(&all)
}

fn needs_of(all: &Crate) -> Needs {
    let mut needs = Needs::new();
    for (module, said) in all.iter().filter(|(module, _)| !module.is_empty()) {
        let means = |path: &Module| Search { all, looked: BTreeSet::new() }.meant(module, path);
        // A name that is given to a module is followed where it is used.
        let named = said.named.values().filter_map(means).filter(|is| matches!(is, Meant::DefinedIn(_)));
        let others = said.all_of.iter().chain(&said.followed).filter_map(means);
        let found = named.chain(others).map(Meant::module);
        let is_outside = |other: &Module| !other.is_empty() && !other.starts_with(module);
        needs.insert(module.clone(), found.filter(is_outside).collect());
    }
    needs
}

fn reached(needs: &Needs, from: &Module) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![from.clone()];
    while let Some(module) = waiting.pop() {
        for next in needs.get(&module).into_iter().flatten() {
            if found.insert(next.clone()) {
                waiting.push(next.clone());
            }
        }
    }
    found
}

/// Returns the largest circle of a crate.
fn largest_circle(needs: &Needs) -> BTreeSet<Module> {
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        needs.keys().map(|module| (module, reached(needs, module))).collect();
    let circle = |module: &Module| -> BTreeSet<Module> {
        let there = reached[module].iter();
        there.filter(|other| reached.get(other).is_some_and(|back| back.contains(module))).cloned().collect()
    };
    needs.keys().map(circle).max_by_key(BTreeSet::len).unwrap_or_default()
}

#[test]
fn no_circle_of_modules_is_large() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut faults = Vec::new();
    for entry in std::fs::read_dir(crates).expect("the crates") {
        let folder = entry.expect("a readable entry").path();
        if !folder.is_dir() {
            continue;
        }
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let needs = needs(&folder.join("src"));
        let circle = largest_circle(&needs);
        println!("{name}: {}", circle.len());
        if circle.len() > CIRCLE_MAX {
            faults.push(format!("{name}: {} modules need each other", circle.len()));
            for module in &circle {
                let others = needs[module].intersection(&circle).map(|other| other.join("::"));
                faults.push(format!("    {} -> {}", module.join("::"), others.collect::<Vec<_>>().join(" ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A crate of these files.
fn a_crate(files: &[(&str, &str)]) -> Crate {
    let module = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    files.iter().map(|(name, text)| (module(name), Said::in_text(text).expect("tokens"))).collect()
}

#[track_caller]
fn needs_as(files: &[(&str, &str)], wanted: &[&str]) {
    let needs = needs_of(&a_crate(files));
    let arrows =
        needs.iter().flat_map(|(from, to)| to.iter().map(move |to| (from.join("::"), to.join("::"))));
    let arrows: Vec<String> = arrows.map(|(from, to)| format!("{from} -> {to}")).collect();
    assert_eq!(arrows, wanted);
}

#[test]
fn a_module_needs_what_it_names_in_uses_paths_and_macros_but_not_in_tests() {
    let text = "use crate::{a::{self, B}, c as other}; fn f() { warn!(\"{}\", super::d::e()); a::g(); other::h() } \
                #[cfg(test)] mod tests { use crate::g; } pub(super) fn h() -> crate::i::J { self.k }";
    let files = [
        ("", ""),
        ("a", "struct B; fn g() {}"),
        ("c", "fn h() {}"),
        ("d", "fn e() {}"),
        ("g", ""),
        ("i", "struct J;"),
        ("x", text),
    ];
    needs_as(&files, &["x -> a", "x -> c", "x -> d", "x -> i"]);
}

#[test]
fn a_folder_that_is_only_named_is_not_needed_but_what_is_found_through_it() {
    let life = [("", "mod life;"), ("life", "fn all() {}"), ("life::start", "fn go() {}")];
    let with = |text| [&life[..], &[("x", text)]].concat();
    needs_as(&with("use crate::life; fn f() { life::start::go() }"), &["x -> life::start"]);
    needs_as(&with("use crate::life as being; fn f() { being::start::go() }"), &["x -> life::start"]);
    needs_as(&with("use crate::life::*; fn f() { start::go() }"), &["x -> life", "x -> life::start"]);
    needs_as(&with("use super::life::{self}; fn f() { life::all() }"), &["x -> life"]);
}

#[test]
fn what_a_folder_or_the_root_shows_of_its_inside_is_needed_where_it_is_defined() {
    let files = [
        ("", "pub use folder::Shown; pub use folder::inside::*; fn own() {}"),
        ("folder", "pub(crate) use inside::Thing; pub use other::Shown;"),
        ("folder::inside", "struct Thing; struct More;"),
        ("folder::other", "enum Shown { One }"),
        ("x", "use crate::folder::Thing;"),
        ("y", "fn f() -> crate::Shown { crate::Shown::One }"),
        ("same", "fn same() {}"),
        ("v", "use crate::same::same; fn f() { same() }"),
        ("z", "use crate::{More, own}; use elsewhere::folder::Thing as Foreign;"),
    ];
    needs_as(&files, &["v -> same", "x -> folder::inside", "y -> folder::other", "z -> folder::inside"]);
}

#[test]
fn the_largest_circle_is_found() {
    let module = |name: &str| vec![name.to_owned()];
    let arrows = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")];
    let mut needs = Needs::new();
    for (from, to) in arrows {
        needs.entry(module(from)).or_default().insert(module(to));
    }
    assert_eq!(largest_circle(&needs), ["a", "b", "c"].map(module).into());
}
