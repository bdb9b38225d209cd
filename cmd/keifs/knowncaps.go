package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/keifs/keifs/backend"
)

// capsAge is how long what a probe saw is believed. A store may be updated
// and learn a condition, hardly ever forget one.
const capsAge = 7 * 24 * time.Hour

// knownCaps remembers what a probe of a store saw, so that not every mount
// has to write to the bucket to find it out again. `keifs probe` renews it.
type knownCaps struct {
	store string // its canonical URL
	log   *slog.Logger
}

// capsRecord is the file.
type capsRecord struct {
	Store  string       `json:"store"`
	Probed time.Time    `json:"probed"`
	Caps   backend.Caps `json:"caps"`
}

func (k knownCaps) path() string {
	return filepath.Join(cacheHome(), "keifs", "probed", shortName(k.store)+".json")
}

// load returns nil where nothing is known, or not any more.
func (k knownCaps) load() *backend.Caps {
	data, err := os.ReadFile(k.path())
	if err != nil {
		return nil
	}
	var r capsRecord
	if json.Unmarshal(data, &r) != nil || r.Store != k.store {
		return nil
	}
	if age := time.Since(r.Probed); age < 0 || age > capsAge {
		return nil
	}
	return &r.Caps
}

// save remembers caps. It is of no consequence where it fails.
func (k knownCaps) save(caps backend.Caps) {
	if err := k.write(capsRecord{k.store, time.Now(), caps}); err != nil {
		k.log.Debug("what the probe saw is not remembered", "store", k.store, "err", err)
	}
}

func (k knownCaps) write(r capsRecord) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	dir := filepath.Dir(k.path())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Several mounts may do this at once: each has a file of its own until
	// the rename.
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), k.path())
}
