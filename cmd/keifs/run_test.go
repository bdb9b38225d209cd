package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func TestAnInterruptWhileARunIsPreparedKeepsItsCommandFromStarting(t *testing.T) {
	j := &job{signal: make(chan os.Signal, 4)}
	interrupted := func(ctx context.Context) error {
		j.signal <- unix.SIGINT
		<-ctx.Done()
		return nil // it was too late
	}
	if err := j.until(interrupted); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ended := runProgram(&cobra.Command{}, dir, []string{"touch", "ran"}, j.signal)
	if _, err := os.Stat(filepath.Join(dir, "ran")); !os.IsNotExist(err) || !ended.never || ended.status != exitSignal+2 {
		t.Errorf("it ran (%v): %+v", err, ended)
	}

	err := j.until(func(ctx context.Context) error {
		return errors.Join(interrupted(ctx), context.Canceled)
	})
	if err == nil || err.Error() != "interrupted (interrupt): context canceled" || len(j.signal) != 0 {
		t.Errorf("error %v, %d signals", err, len(j.signal))
	}
	if err := j.until(func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
}
