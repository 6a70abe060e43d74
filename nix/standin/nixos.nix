# The options of NixOS that nix/module.nix and its tests set, and units as systemd reads them.
{ lib }:
let
  inherit (lib) mkOption types;
  inherit (types)
    anything
    attrsOf
    bool
    listOf
    str
    submodule
    ;

  internal =
    type: default:
    mkOption {
      inherit type default;
      internal = true;
    };
  strings = internal (listOf str) [ ];
  any = internal anything { };

  unit = {
    description = internal str "";
    documentation = strings;
    wantedBy = strings;
    wants = strings;
    requires = strings;
    after = strings;
    unitConfig = any;
  };
  service = unit // {
    environment = any;
    serviceConfig = any;
    reloadTriggers = internal (listOf anything) [ ];
    restartTriggers = internal (listOf anything) [ ];
    stopIfChanged = internal bool true;
  };
  socket = unit // {
    listenStreams = strings;
    socketConfig = any;
  };

  options = {
    nixpkgs.pkgs = internal types.raw null;
    assertions = internal (listOf anything) [ ];
    environment = {
      etc = any;
      systemPackages = internal (listOf anything) [ ];
    };
    networking.firewall.allowedTCPPorts = internal (listOf types.port) [ ];
    specialisation = any;
    system.switch.enable = internal bool false;
    systemd = {
      services = internal (attrsOf (submodule {
        options = service;
      })) { };
      sockets = internal (attrsOf (submodule {
        options = socket;
      })) { };
      tmpfiles.settings = any;
      units = any;
    };
    users = {
      users = any;
      groups = any;
    };
  };

  # `Name=value`, a line for each value of a list.
  lines =
    attrs:
    let
      word =
        value:
        if value == true then
          "true"
        else if value == false then
          "false"
        else
          toString value;
      line = name: value: "${name}=${word value}\n";
      linesOf =
        name: value: if builtins.isList value then map (line name) value else [ (line name value) ];
    in
    lib.concatStringsSep "" (builtins.concatLists (lib.mapAttrsToList linesOf attrs));
  words = name: list: lib.optionalAttrs (list != [ ]) { ${name} = toString list; };

  common =
    unit:
    ''
      [Unit]
    ''
    + lines (
      words "Description" [ unit.description ]
      // words "Documentation" unit.documentation
      // words "Wants" unit.wants
      // words "Requires" unit.requires
      // words "After" unit.after
      // words "X-Reload-Triggers" (unit.reloadTriggers or [ ])
      // words "X-Restart-Triggers" (unit.restartTriggers or [ ])
      // unit.unitConfig
    );
  install = unit: ''

    [Install]
    WantedBy=${toString unit.wantedBy}
  '';
  serviceText =
    unit:
    common unit
    + ''

      [Service]
    ''
    + lines {
      Environment = lib.mapAttrsToList (name: value: builtins.toJSON "${name}=${value}") unit.environment;
    }
    + lib.optionalString (!unit.stopIfChanged) "X-StopIfChanged=false\n"
    + lines unit.serviceConfig
    + install unit;
  socketText =
    unit:
    common unit
    + ''

      [Socket]
    ''
    + lines { ListenStream = unit.listenStreams; }
    + lines unit.socketConfig
    + install unit;

  units =
    { config, ... }:
    {
      systemd.units =
        lib.mapAttrs' (name: unit: {
          name = "${name}.service";
          value.text = serviceText unit;
        }) config.systemd.services
        // lib.mapAttrs' (name: unit: {
          name = "${name}.socket";
          value.text = socketText unit;
        }) config.systemd.sockets;
    };
in
{
  # A system, as far as it can be looked at: `config`, with the texts in `systemd.units`.
  nixosSystem =
    { modules }:
    let
      system = lib.evalModules {
        modules = [
          { inherit options; }
          units
        ]
        ++ modules;
        specialArgs = { inherit (system.config.nixpkgs) pkgs; };
      };
    in
    system;
}
