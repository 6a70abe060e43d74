# An OCI image that holds the server and what it links, and no shell. Data is on the volume /data.
{
  lib,
  dockerTools,
  netwatch-server,
}:
let
  # Nobody on the host; as in the Dockerfile.
  user = "65532:65532";
in
dockerTools.buildLayeredImage {
  name = netwatch-server.pname;
  tag = netwatch-server.version;

  # A new volume takes its owner and its mode from here.
  fakeRootCommands = ''
    mkdir -m 0750 data
    chown ${user} data
  '';

  config = {
    Entrypoint = [ (lib.getExe netwatch-server) ];
    User = user;
    Env = [ "DATA_DIR=/data" ];
    Volumes."/data" = { };
    ExposedPorts."8080/tcp" = { };
    Labels = {
      "org.opencontainers.image.title" = netwatch-server.pname;
      "org.opencontainers.image.description" = netwatch-server.meta.description;
      "org.opencontainers.image.version" = netwatch-server.version;
      "org.opencontainers.image.licenses" = netwatch-server.meta.license.spdxId;
    };
  };
}
