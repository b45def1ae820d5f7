//! What the sources of this crate name, for the rules of `tidy`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use syn::buffer::{Cursor, TokenBuffer};
use syn::parse::{ParseStream, Parser as _};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, Item, ItemExternCrate, ItemMod, ItemUse, Macro, MetaList, UseTree, VisRestricted};

/// A path as a source names it; the braces of a `use` are written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The words between the `::`. There are at least two, except in a `use`.
    pub(crate) words: Vec<String>,
    /// It starts with `::`, so its first word is a crate.
    starts_at_crates: bool,
    /// The modules of the file itself, `mod a { … }`, in which it stands.
    inner_modules: Vec<String>,
    /// It stands under `#[cfg(test)]`.
    is_for_tests: bool,
}

/// Every path in a source, also in macros and attributes. Visibilities such as `pub(super)` and names of modules are none.
pub(crate) fn named_in(source: &str) -> Vec<Named> {
    let mut names = Names::default();
    names.visit_file(&syn::parse_file(source).unwrap_or_else(|error| panic!("{error} in {source}")));
    names.found
}

/// True when a word stands in a source outside comments and literals.
pub(crate) fn has_word(source: &str, wanted: &str) -> bool {
    fn is_in(mut cursor: Cursor<'_>, wanted: &str) -> bool {
        while !cursor.eof() {
            if let Some((word, behind)) = cursor.ident() {
                if word == wanted {
                    return true;
                }
                cursor = behind;
            } else if let Some((inside, .., behind)) = cursor.any_group() {
                if is_in(inside, wanted) {
                    return true;
                }
                cursor = behind;
            } else if let Some((_, behind)) = cursor.token_tree() {
                cursor = behind;
            }
        }
        false
    }
    let tokens = (|input: ParseStream<'_>| input.parse().map(TokenBuffer::new2)).parse_str(source);
    is_in(tokens.unwrap_or_else(|error| panic!("{error} in {source}")).begin(), wanted)
}

#[derive(Default)]
struct Names {
    found: Vec<Named>,
    inner_modules: Vec<String>,
    is_for_tests: bool,
}

impl Names {
    fn push(&mut self, words: Vec<String>, starts_at_crates: bool) {
        let Self { inner_modules, is_for_tests, .. } = self;
        let (inner_modules, is_for_tests) = (inner_modules.clone(), *is_for_tests);
        self.found.push(Named { words, starts_at_crates, inner_modules, is_for_tests });
    }

    fn push_use(&mut self, tree: &UseTree, before: &[String], starts_at_crates: bool) {
        let joined = |word: &syn::Ident| {
            let mut words = before.to_vec();
            if word != "self" || before.is_empty() {
                words.push(word_of(word));
            }
            words
        };
        match tree {
            UseTree::Path(path) => self.push_use(&path.tree, &joined(&path.ident), starts_at_crates),
            UseTree::Name(name) => self.push(joined(&name.ident), starts_at_crates),
            UseTree::Rename(rename) => self.push(joined(&rename.ident), starts_at_crates),
            UseTree::Glob(_) => self.push(before.to_vec(), starts_at_crates),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.push_use(tree, before, starts_at_crates)),
        }
    }

    /// Finds paths among tokens that are not parsed: words with `::` between.
    fn push_tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut words: Vec<String> = Vec::new();
        let mut colons = 0;
        while !cursor.eof() {
            if let Some((word, behind)) = cursor.ident() {
                if colons != 2 {
                    self.push_if_path(std::mem::take(&mut words));
                }
                words.push(word_of(&word));
                (colons, cursor) = (0, behind);
            } else if let Some((':', behind)) = cursor.punct().map(|(punct, behind)| (punct.as_char(), behind)) {
                (colons, cursor) = (colons + 1, behind);
            } else {
                self.push_if_path(std::mem::take(&mut words));
                colons = 0;
                if let Some((inside, .., behind)) = cursor.any_group() {
                    self.push_tokens(inside);
                    cursor = behind;
                } else if let Some((_, behind)) = cursor.token_tree() {
                    cursor = behind;
                }
            }
        }
        self.push_if_path(words);
    }

    fn push_if_path(&mut self, words: Vec<String>) {
        if words.len() > 1 {
            self.push(words, false);
        }
    }

    fn visit_for_tests_if(&mut self, is_for_tests: bool, visit: impl FnOnce(&mut Self)) {
        let before = self.is_for_tests;
        self.is_for_tests |= is_for_tests;
        visit(self);
        self.is_for_tests = before;
    }
}

/// `r#type` is `type`.
fn word_of(word: &syn::Ident) -> String {
    let word = word.to_string();
    word.strip_prefix("r#").map_or(word.clone(), str::to_owned)
}

fn are_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let condition = attribute.meta.require_list().ok().filter(|list| list.path.is_ident("cfg"));
        condition.is_some_and(|list| list.tokens.to_string() == "test")
    })
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        self.visit_for_tests_if(are_for_tests(attributes_of(item)), |names| visit::visit_item(names, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.visit_for_tests_if(are_for_tests(&item.attrs), |names| visit::visit_impl_item_fn(names, item));
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.inner_modules.push(word_of(&item.ident));
        visit::visit_item_mod(self, item);
        self.inner_modules.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.push_use(&item.tree, &[], item.leading_colon.is_some());
    }

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        self.push(vec![word_of(&item.ident)], true);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let words = path.segments.iter().map(|segment| word_of(&segment.ident)).collect();
            self.push(words, path.leading_colon.is_some());
        }
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.push_tokens(TokenBuffer::new2(item.tokens.clone()).begin());
        visit::visit_macro(self, item);
    }

    fn visit_meta_list(&mut self, list: &'ast MetaList) {
        self.push_tokens(TokenBuffer::new2(list.tokens.clone()).begin());
        visit::visit_meta_list(self, list);
    }
}

/// The sources below a directory by their paths in it, with their contents.
pub(crate) fn sources_in(directory: &Path) -> BTreeMap<String, String> {
    fn collect(directory: &Path, below: &str, sources: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &format!("{name}/"), sources);
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                sources.insert(name, fs::read_to_string(entry.path()).unwrap());
            }
        }
    }
    let mut sources = BTreeMap::new();
    collect(directory, "", &mut sources);
    sources
}

/// The module of a file: `engine/mod.rs` and `engine.rs` are `engine`, `lib.rs` is the root.
fn module_of(file: &str) -> Vec<&str> {
    let module = file.trim_end_matches(".rs");
    let module = module.strip_suffix("/mod").unwrap_or(module);
    if module == "lib" { Vec::new() } else { module.split('/').collect() }
}

/// Which file names which other, outside tests. A path belongs to the file of its longest start that is a module.
pub(crate) fn edges(sources: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<&str>> {
    let files: BTreeMap<_, _> = sources.keys().map(|file| (module_of(file), file.as_str())).collect();
    let mut edges = BTreeMap::new();
    for (file, source) in sources {
        let named = named_in(source);
        let targets = named.iter().filter(|named| !named.is_for_tests).filter_map(|named| target(&files, file, named));
        edges.insert(file.as_str(), targets.filter(|target| target != file).collect());
    }
    edges
}

/// The file in which the named thing is, or the part of a path that is known; `None` for other crates and for what is
/// named by an imported word: its `use` has been found already.
fn target<'a>(files: &BTreeMap<Vec<&str>, &'a str>, file: &str, named: &Named) -> Option<&'a str> {
    let mut module = module_of(file);
    module.extend(named.inner_modules.iter().map(String::as_str));
    let mut words = named.words.iter().map(String::as_str).peekable();
    match *words.peek()? {
        _ if named.starts_at_crates => return None,
        "crate" | "adtally" => {
            module.clear();
            words.next();
        }
        "self" | "super" => {
            while let Some(word) = words.next_if(|word| matches!(*word, "self" | "super")) {
                if word == "super" {
                    module.pop();
                }
            }
        }
        child => {
            module.push(child);
            if !files.contains_key(&module) {
                return None;
            }
            words.next();
        }
    }
    module.extend(words);
    while !files.contains_key(&module) {
        module.pop()?;
    }
    files.get(&module).copied()
}

/// The circles in which files name each other: each the next, the last the first.
pub(crate) fn circles<'a>(mut edges: BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(circle) = find_circle(&edges) {
        found.push([&circle[..], &circle[..1]].concat().join(" -> "));
        // Without one edge of it another circle may be left.
        let next = circle.get(1).unwrap_or(&circle[0]);
        edges.entry(circle[0]).or_default().remove(*next);
    }
    found
}

fn find_circle<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    fn walk<'a>(
        edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        file: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<&'a str>> {
        if let Some(start) = way.iter().position(|earlier| *earlier == file) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(file) {
            return None;
        }
        way.push(file);
        let circle = edges.get(file).into_iter().flatten().find_map(|next| walk(edges, next, way, done));
        way.pop();
        circle
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|file| walk(edges, file, &mut Vec::new(), &mut done))
}
