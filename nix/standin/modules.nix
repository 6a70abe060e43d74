# The module system, as far as nix/module.nix and its tests use it: options with types, definitions under
# mkIf, and refusal of names that are no option. Definitions merge; there are no priorities.
{ lib }:
let
  inherit (builtins)
    all
    attrNames
    attrValues
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isPath
    isString
    length
    listToAttrs
    match
    ;

  show = concatStringsSep ".";

  isIf = value: isAttrs value && value._type or null == "if";
  isOption = value: isAttrs value && value._type or null == "option";

  # The attributes of a definition. Its condition is not looked at: it may need the very option that is
  # being put together.
  names = definition: attrNames (if isIf definition then definition.content else definition);
  pick =
    attr: definition:
    if isIf definition then
      map (content: definition // { inherit content; }) (pick attr definition.content)
    else
      lib.optional (definition ? ${attr}) definition.${attr};

  # What the definitions come to once conditions are known.
  settle = concatMap (
    value:
    if !isIf value then
      [ value ]
    else if value.condition then
      settle [ value.content ]
    else
      [ ]
  );

  children =
    at: path: definitions:
    listToAttrs (
      map (name: {
        inherit name;
        value = at (path ++ [ name ]) (concatMap (pick name) definitions);
      }) (concatMap names definitions)
    );

  # The value of an option, from its definitions and its default.
  value =
    path: option: definitions:
    let
      settled = settle definitions;
    in
    if !(option ? description) && !(option.internal or false) then
      throw "${show path} has no description"
    else if settled != [ ] then
      merge path option.type settled
    else if option ? default then
      merge path option.type [ option.default ]
    else
      throw "${show path} is used and not defined";

  merge =
    path: type: values:
    let
      wrong = filter (value: !type.check value) values;
    in
    if wrong != [ ] then
      throw "${show path} is not of type ${type.name}: ${builtins.toJSON (head wrong)}"
    else
      type.merge path values;

  # The values of a tree of options.
  tree =
    path: options: definitions:
    let
      strangers = unknown path options definitions;
    in
    if strangers != [ ] then
      throw "${head strangers} is no option"
    else
      values path options definitions;

  # Each node of the tree, with what defines it.
  walk =
    at: path: options: definitions:
    builtins.mapAttrs (
      name: option: at (path ++ [ name ]) option (concatMap (pick name) definitions)
    ) options;

  values = walk (
    path: option: definitions:
    (if isOption option then value else values) path option definitions
  );

  # The whole tree is looked through, whichever value is asked for.
  unknown =
    path: options: definitions:
    map (name: show (path ++ [ name ])) (
      filter (name: !(options ? ${name})) (concatMap names definitions)
    )
    ++ concatLists (
      attrValues (
        walk (
          path: option: definitions:
          if isOption option then [ ] else unknown path option definitions
        ) path options definitions
      )
    );

  # Types.

  type = name: check: {
    inherit name check;
    merge =
      path: values:
      if length values == 1 || all (value: value == head values) values then
        head values
      else
        throw "${show path} is defined twice";
  };

  types = rec {
    raw = type "anything" (_: true);
    # Sets become one, lists are joined, of anything else there is one.
    anything = raw // {
      merge =
        path: values:
        if all (value: isAttrs value && !(value ? outPath)) values then
          children (path: values: anything.merge path (settle values)) path values
        else if all isList values then
          concatLists values
        else
          raw.merge path values;
    };
    bool = type "bool" isBool;
    str = type "str" isString;
    port = ints.between 0 65535;
    package = type "package" (value: value ? outPath);
    externalPath = type "path outside the store" (
      value:
      (isPath value || isString value && lib.hasPrefix "/" value)
      && !lib.hasPrefix builtins.storeDir (toString value)
    );
    enum = words: type "one of ${toString words}" (value: elem value words);
    strMatching = regex: type "string of ${regex}" (value: isString value && match regex value != null);
    ints.between =
      min: max:
      type "${toString min} to ${toString max}" (value: isInt value && min <= value && value <= max);
    either = a: b: type "${a.name}, or ${b.name}" (value: a.check value || b.check value);
    nullOr =
      of:
      of
      // {
        name = "null or ${of.name}";
        check = value: value == null || of.check value;
        merge = path: values: if elem null values then null else of.merge path values;
      };
    listOf =
      of:
      type "list of ${of.name}" (value: isList value && all of.check value)
      // {
        merge = _: concatLists;
      };
    nonEmptyListOf =
      of:
      listOf of
      // {
        name = "list of at least one ${of.name}";
        check = value: value != [ ] && (listOf of).check value;
      };
    attrsOf =
      of:
      type "set of ${of.name}" isAttrs
      // {
        # What all of its conditions leave out is not there.
        merge =
          path: values:
          builtins.mapAttrs (_: values: values.settled) (
            lib.filterAttrs (_: values: values.isThere) (
              children (
                path: definitions:
                let
                  settled = settle definitions;
                in
                {
                  isThere = settled != [ ];
                  settled = merge path of settled;
                }
              ) path values
            )
          );
      };
    submodule =
      { options }:
      type "submodule" isAttrs
      // {
        merge = path: tree path options;
      };
  };

  # Modules.

  evalModules =
    {
      modules,
      specialArgs ? { },
    }:
    let
      # A module and those that it imports, as sets of `options` and `config`.
      load =
        module:
        let
          read = if isPath module then import module else module;
          set = if isFunction read then read (specialArgs // result // { inherit lib; }) else read;
        in
        [
          (
            if set ? options || set ? config then
              {
                options = set.options or { };
                config = set.config or { };
              }
            else
              {
                options = { };
                config = removeAttrs set [ "imports" ];
              }
          )
        ]
        ++ concatMap load (set.imports or [ ]);
      loaded = concatMap load modules;

      join =
        path: sets:
        builtins.mapAttrs (
          name: options:
          if !isOption (head options) then
            join (path ++ [ name ]) options
          else if length options == 1 then
            head options
          else
            throw "${show (path ++ [ name ])} is declared twice"
        ) (builtins.zipAttrsWith (_: values: values) sets);

      result = rec {
        options = join [ ] (map (module: module.options) loaded);
        config = tree [ ] options (map (module: module.config) loaded);
      };
    in
    result;
in
{
  inherit evalModules types;
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkOption = option: option // { _type = "option"; };
  mkEnableOption =
    what:
    lib.mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  literalMD = text: {
    _type = "literalMD";
    inherit text;
  };
}
