// Command gitea is the real Gitea, built from its Go module.
package main

import (
	"os"

	"code.gitea.io/gitea/cmd"
	"code.gitea.io/gitea/modules/log"
)

func main() {
	app := cmd.NewMainApp(cmd.AppVersion{Version: "1.26.0"})
	err := cmd.RunMainApp(app, os.Args...)
	log.GetManager().Close()
	if err != nil {
		os.Exit(1)
	}
}
