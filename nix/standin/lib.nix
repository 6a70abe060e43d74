# The functions of nixpkgs' lib that the flake uses.
let
  inherit (builtins) pathExists toString;
in
rec {
  genAttrs =
    names: f:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = f name;
      }) names
    );

  importTOML = path: builtins.fromTOML (builtins.readFile path);

  licenses.mit.spdxId = "MIT";

  platforms.linux = [
    "x86_64-linux"
    "aarch64-linux"
  ];

  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;

  # A file set is a list of paths, each of which exists.
  fileset = {
    unions = map (
      path: if pathExists path then path else throw "fileset: ${toString path} does not exist"
    );

    toSource =
      { root, fileset }:
      let
        kept = map toString fileset;
        # A kept path, what is below one, and the directories above one.
        keep =
          path: type:
          builtins.any (
            k: path == k || hasPrefix "${k}/" path || (type == "directory" && hasPrefix "${path}/" k)
          ) kept;
      in
      builtins.path {
        name = "source";
        path = root;
        filter = keep;
      };
  };
}
