"""Who works: this process, or Ray. The only room that imports ray."""
