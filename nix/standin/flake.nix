# Stands in for nixpkgs where the network is closed:
#
#   nix flake check --no-build --no-write-lock-file --override-input nixpkgs path:$PWD/nix/standin
#
# It has the names that our flake uses and no others, so evaluation finds undefined names, wrong package
# arguments and paths missing from the source. It builds nothing, and knows nothing of nixpkgs' own checks.
{
  description = "Stand-in for nixpkgs: just enough to evaluate this repository's flake offline";

  outputs =
    _:
    let
      lib = import ./lib.nix;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs lib.platforms.linux (
        system: import ./pkgs.nix { inherit lib system; }
      );
    };
}
