# The functions of nixpkgs' lib that the flake uses.
let
  inherit (builtins) pathExists toString;

  modules = import ./modules.nix { inherit lib; };
  nixos = import ./nixos.nix { inherit lib; };

  lib = modules // nixos // functions;

  functions = rec {
    genAttrs =
      names: f:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );

    inherit (builtins) concatStringsSep;

    mapAttrs' =
      f: attrs: builtins.listToAttrs (map (name: f name attrs.${name}) (builtins.attrNames attrs));
    mapAttrsToList = f: attrs: map (name: f name attrs.${name}) (builtins.attrNames attrs);
    filterAttrs =
      keep: attrs:
      removeAttrs attrs (builtins.filter (name: !keep name attrs.${name}) (builtins.attrNames attrs));

    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: attrs: if condition then attrs else { };
    optionalString = condition: text: if condition then text else "";

    getExe = package: "${package}/bin/${package.meta.mainProgram}";

    importTOML = path: builtins.fromTOML (builtins.readFile path);

    licenses.mit.spdxId = "MIT";

    platforms.linux = [
      "x86_64-linux"
      "aarch64-linux"
    ];

    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;

    hasInfix = infix: text: builtins.length (builtins.split infix text) > 1;
    toUpper = builtins.replaceStrings lower upper;

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
  };

  letters = text: builtins.genList (i: builtins.substring i 1 text) 26;
  lower = letters "abcdefghijklmnopqrstuvwxyz";
  upper = letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
in
lib
