// Reads a registry's log with Go's own checker (golang.org/x/mod/sumdb/tlog and note), which
// nobody here wrote: the checkpoint's signature, its root from the tiles, the inclusion of
// every entry, and the consistency of earlier sizes with it.
//
// Usage: main <url of the log> <key of the log> [<earlier size>:<its root in base64> ...]
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

type site string

func (s site) get(path string) ([]byte, error) {
	response, err := http.Get(string(s) + "/" + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", path, response.StatusCode)
	}
	return body, err
}

func (s site) Height() int { return height }

// Go's paths name the height of tiles, those of tlog-tiles do not.
func (s site) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := s.get(path)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func (s site) SaveTiles([]tlog.Tile, [][]byte) {}

// The entries of a bundle, each behind its length in two bytes.
func (s site) bundle(index, size int64) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: 0, N: index, W: 1 << height}
	if left := size - index<<height; left < 1<<height {
		tile.W = int(left)
	}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", height), "tile/entries/", 1)
	rest, err := s.get(path)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(rest) > 0 {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return nil, fmt.Errorf("%s ends within an entry", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(rest))
		entries, rest = append(entries, rest[2:end]), rest[end:]
	}
	if len(entries) != tile.W {
		return nil, fmt.Errorf("%s has %d entries, not %d", path, len(entries), tile.W)
	}
	return entries, nil
}

func parse(size, root string) (int64, tlog.Hash, error) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	bytes, err := base64.StdEncoding.DecodeString(root)
	if err != nil || len(bytes) != tlog.HashSize {
		return 0, tlog.Hash{}, fmt.Errorf("%q is no hash", root)
	}
	var hash tlog.Hash
	copy(hash[:], bytes)
	return n, hash, nil
}

func check(log site, key string, earlier []string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	signed, err := log.get("checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return fmt.Errorf("the checkpoint is not of %s: %q", verifier.Name(), opened.Text)
	}
	size, root, err := parse(lines[1], lines[2])
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, log)
	computed, err := tlog.TreeHash(size, hashes)
	if err != nil {
		return err
	}
	if computed != root {
		return fmt.Errorf("the tiles give root %s, the checkpoint says %s", computed, root)
	}
	var bytes int
	for index := int64(0); index<<height < size; index++ {
		entries, err := log.bundle(index, size)
		if err != nil {
			return err
		}
		for offset, entry := range entries {
			position := index<<height + int64(offset)
			proof, err := tlog.ProveRecord(size, position, hashes)
			if err != nil {
				return err
			}
			if err := tlog.CheckRecord(proof, size, root, position, tlog.RecordHash(entry)); err != nil {
				return fmt.Errorf("entry %d: %w", position, err)
			}
			bytes += len(entry)
		}
	}
	for _, argument := range earlier {
		size1, root1, found := strings.Cut(argument, ":")
		if !found {
			return fmt.Errorf("%q is not size:root", argument)
		}
		old, oldRoot, err := parse(size1, root1)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(size, old, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, size, root, old, oldRoot); err != nil {
			return fmt.Errorf("size %d is no prefix of size %d: %w", old, size, err)
		}
	}
	fmt.Printf("%s: size %d, root %s: %d entries of %d bytes included, %d earlier sizes consistent\n",
		verifier.Name(), size, root, size, bytes, len(earlier))
	return nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: main <url> <key> [<size>:<root> ...]")
		os.Exit(2)
	}
	if err := check(site(strings.TrimSuffix(os.Args[1], "/")), os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
