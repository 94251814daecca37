"""The functions of `import sightline as sl`, for notebooks. Nothing heavy is imported until a function runs."""
